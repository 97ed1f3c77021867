/*
 * ONNX Runtime on a sealed model: `onnxruntime MODEL KEY-REFERENCE FILE LIBRARY`
 *
 * The model's plaintext is in memory behind a descriptor, and nowhere else: ONNX Runtime opens /proc/self/fd/N. FILE takes
 * a matrix "x" of 3 x 1 floats and gives a matrix "y" of 2 x 1. LIBRARY is libonnxruntime.so of any release from 1.16 on; what
 * is used of its C API is declared here, as few packages of it come with the header.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <modelseal.h>

/* Places in ONNX Runtime's table of functions, which only ever grows at its end. */
enum { GET_ERROR_MESSAGE = 2, CREATE_ENV = 3, CREATE_SESSION = 7, RUN = 9, CREATE_SESSION_OPTIONS = 10,
       CREATE_TENSOR_WITH_DATA = 49, GET_TENSOR_MUTABLE_DATA = 51, CREATE_CPU_MEMORY_INFO = 69, RELEASE_ENV = 92,
       RELEASE_MEMORY_INFO = 94, RELEASE_SESSION = 95, RELEASE_VALUE = 96, RELEASE_SESSION_OPTIONS = 100 };
enum { API_VERSION = 16, LOG_ERRORS = 3, ARENA = 1, DEFAULT_MEMORY = 0, FLOAT = 1 };

typedef struct status status;
typedef void (*function)(void);
typedef struct api_base {
    const function *(*get_api)(uint32_t version);
    const char *(*get_version)(void);
} api_base;

static const function *api;

/* A function of the table as what it is. */
#define ORT(place, ...) ((status * (*)(__VA_ARGS__)) api[place])
#define ORT_RELEASE(place, object) ((void (*)(void *))api[place])(object)

static void expect(status *failed) {
    if (failed != NULL) {
        fprintf(stderr, "onnxruntime: %s\n", ((const char *(*)(const status *))api[GET_ERROR_MESSAGE])(failed));
        exit(1);
    }
}

static void expect_ok(int32_t code, modelseal_error *error) {
    if (code != MODELSEAL_OK) {
        fprintf(stderr, "modelseal: %s\n", modelseal_error_message(error));
        exit(1);
    }
}

/* The file in the sealed model as a descriptor. */
static int open_sealed(const char *location, const char *reference, const char *path) {
    modelseal_error *error = NULL;
    modelseal_settings *settings = NULL;
    modelseal_key *key = NULL;
    modelseal_model *model = NULL;
    modelseal_file *file = NULL;
    int fd = -1;
    expect_ok(modelseal_settings_from_env(&settings, &error), error);
    expect_ok(modelseal_key_from_reference(settings, reference, MODELSEAL_NUL_TERMINATED, &key, &error), error);
    expect_ok(modelseal_open(settings, location, MODELSEAL_NUL_TERMINATED, key, &model, &error), error);
    expect_ok(modelseal_file_open(model, path, MODELSEAL_NUL_TERMINATED, &file, &error), error);
    expect_ok(modelseal_memfd(file, &fd, &error), error);
    modelseal_file_free(file);
    modelseal_model_free(model);
    modelseal_key_free(key);
    modelseal_settings_free(settings);
    return fd;
}

/* Loads the library and finds its table. */
static void load(const char *library) {
    void *loaded = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    void *symbol = loaded == NULL ? NULL : dlsym(loaded, "OrtGetApiBase");
    const api_base *(*get_base)(void) = NULL;
    if (symbol != NULL) {
        memcpy(&get_base, &symbol, sizeof symbol);
        api = get_base()->get_api(API_VERSION);
    }
    if (api == NULL) {
        fprintf(stderr, "%s cannot be used: %s\n", library, loaded == NULL ? dlerror() : "it is too old");
        exit(1);
    }
    printf("ONNX Runtime %s\n", get_base()->get_version());
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: %s MODEL KEY-REFERENCE FILE LIBRARY\n", argv[0]);
        return 2;
    }
    load(argv[4]);
    int fd = open_sealed(argv[1], argv[2], argv[3]);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);

    void *env = NULL, *options = NULL, *session = NULL, *memory = NULL, *x = NULL, *y = NULL;
    expect(ORT(CREATE_ENV, int, const char *, void **)(LOG_ERRORS, "example", &env));
    expect(ORT(CREATE_SESSION_OPTIONS, void **)(&options));
    expect(ORT(CREATE_SESSION, void *, const char *, void *, void **)(env, path, options, &session));
    close(fd);

    float input[3] = {1.0f, 10.0f, 100.0f};
    int64_t shape[2] = {3, 1};
    expect(ORT(CREATE_CPU_MEMORY_INFO, int, int, void **)(ARENA, DEFAULT_MEMORY, &memory));
    expect(ORT(CREATE_TENSOR_WITH_DATA, void *, void *, size_t, const int64_t *, size_t, int, void **)(
        memory, input, sizeof input, shape, 2, FLOAT, &x));
    const char *inputs[] = {"x"};
    const char *outputs[] = {"y"};
    const void *values[] = {x};
    expect(ORT(RUN, void *, void *, const char *const *, const void *const *, size_t, const char *const *, size_t, void **)(
        session, NULL, inputs, values, 1, outputs, 1, &y));
    float *output = NULL;
    expect(ORT(GET_TENSOR_MUTABLE_DATA, void *, void **)(y, (void **)&output));
    printf("y = %g %g\n", (double)output[0], (double)output[1]);

    ORT_RELEASE(RELEASE_VALUE, y);
    ORT_RELEASE(RELEASE_VALUE, x);
    ORT_RELEASE(RELEASE_MEMORY_INFO, memory);
    ORT_RELEASE(RELEASE_SESSION, session);
    ORT_RELEASE(RELEASE_SESSION_OPTIONS, options);
    ORT_RELEASE(RELEASE_ENV, env);
    return 0;
}
