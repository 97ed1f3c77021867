/* The library loaded and unloaded at run time, with work in between that starts threads. `load LIBRARY DIR` */
#include <dlfcn.h>

#include "sample.h"

/* What is used of it. ISO C has no conversion from an object pointer to one of a function. */
#define LOAD(library, name) \
    do { \
        void *symbol = dlsym((library), "modelseal_" #name); \
        CHECK(symbol != NULL); \
        memcpy(&name, &symbol, sizeof symbol); \
    } while (0)

static int32_t (*key_from_bytes)(const uint8_t *, size_t, int32_t, modelseal_key **, modelseal_error **);
static void (*key_free)(modelseal_key *);
static int32_t (*open_model)(const modelseal_settings *, const char *, size_t, const modelseal_key *, modelseal_model **,
                             modelseal_error **);
static void (*model_free)(modelseal_model *);
static int32_t (*file_open)(const modelseal_model *, const char *, size_t, modelseal_file **, modelseal_error **);
static int32_t (*file_read)(const modelseal_file *, uint64_t, uint8_t *, size_t, modelseal_error **);
static void (*file_free)(modelseal_file *);

int main(int argc, char **argv) {
    CHECK(argc == 3);
    unsigned char *wanted = pattern(WEIGHTS_LEN);
    unsigned char *data = (unsigned char *)malloc(WEIGHTS_LEN);
    CHECK(data != NULL);
    for (int round = 0; round < 3; round++) {
        void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
        if (library == NULL) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
        LOAD(library, key_from_bytes);
        LOAD(library, key_free);
        LOAD(library, model_free);
        LOAD(library, file_open);
        LOAD(library, file_read);
        LOAD(library, file_free);
        void *symbol = dlsym(library, "modelseal_open");
        CHECK(symbol != NULL);
        memcpy(&open_model, &symbol, sizeof symbol);
        modelseal_key *key = NULL;
        CHECK(key_from_bytes((const uint8_t *)PASSWORD, sizeof PASSWORD - 1, MODELSEAL_PASSWORD, &key, NULL) == 0);
        modelseal_model *model = NULL;
        CHECK(open_model(NULL, join(argv[2], "gocryptfs"), NTS, key, &model, NULL) == 0);
        key_free(key);
        modelseal_file *file = NULL;
        CHECK(file_open(model, "weights.bin", NTS, &file, NULL) == 0);
        CHECK(file_read(file, 0, data, WEIGHTS_LEN, NULL) == 0);
        CHECK(memcmp(data, wanted, WEIGHTS_LEN) == 0);
        file_free(file);
        model_free(model);
        CHECK(dlclose(library) == 0);
        /* The threads that it started go on. */
        CHECK(usleep(20000) == 0);
    }
    free(data);
    free(wanted);
    puts("load: all holds");
    return 0;
}
