/* Every function, with what it is for and with what it is not. Compiles as C11 and as C++17. `suite DIR` */
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "sample.h"

/* Of the callbacks. */
typedef struct calls {
    int count;
    int cancel_at;
    uint64_t done;
    uint64_t total;
    int32_t status;
    char text[256];
} calls;

static int32_t on_progress(void *user, uint64_t done, uint64_t total) {
    calls *heard = (calls *)user;
    CHECK(done >= heard->done && (total == 0 || done <= total));
    heard->done = done;
    heard->total = total;
    heard->count++;
    return heard->count == heard->cancel_at ? -7 : 0;
}

static void on_damage(void *user, const char *path, size_t path_len, const modelseal_error *found) {
    calls *heard = (calls *)user;
    CHECK(path_len < sizeof heard->text);
    memcpy(heard->text, path, path_len);
    heard->text[path_len] = '\0';
    heard->status = modelseal_error_status(found);
    CHECK(strlen(modelseal_error_message(found)) > 0);
    heard->count++;
}

static void on_log(void *user, int32_t level, const char *message) {
    calls *heard = (calls *)user;
    CHECK(level >= MODELSEAL_LOG_ERROR && level <= MODELSEAL_LOG_TRACE);
    snprintf(heard->text, sizeof heard->text, "%s", message);
    heard->status = modelseal_set_log(NULL, NULL, MODELSEAL_LOG_OFF, NULL);
    heard->count++;
}

static void test_versions(void) {
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", MODELSEAL_VERSION_MAJOR, MODELSEAL_VERSION_MINOR,
             MODELSEAL_VERSION_PATCH);
    CHECK(strcmp(modelseal_version(), version) == 0);
    OK(modelseal_check(&error));
    EXPECT(MODELSEAL_VERSION, modelseal_check_version(MODELSEAL_VERSION_MAJOR + 1, 0, 0, &error));
    CHECK(modelseal_check_version(MODELSEAL_VERSION_MAJOR + 1, 0, 0, NULL) == MODELSEAL_VERSION);
    CHECK(strcmp(modelseal_status_name(MODELSEAL_OK), "MODELSEAL_OK") == 0);
    CHECK(modelseal_status_name(-1) == NULL);
}

static void test_settings(void) {
    modelseal_settings *settings = NULL;
    OK(modelseal_settings_from_env(&settings, &error));
    modelseal_settings_free(settings);
    OK(modelseal_settings_new(&settings, &error));
    EXPECT(MODELSEAL_ARGUMENT, modelseal_settings_set_text(settings, 12345, "x", 1, &error));
    EXPECT(MODELSEAL_ARGUMENT, modelseal_settings_set_text(settings, MODELSEAL_SET_EVIDENCE, "none", NTS, &error));
    EXPECT(MODELSEAL_ARGUMENT, modelseal_settings_set_number(settings, MODELSEAL_SET_THREADS, UINT64_MAX, &error));
    EXPECT(MODELSEAL_ARGUMENT, modelseal_settings_set_number(settings, MODELSEAL_SET_KBS_URL, 1, &error));
    EXPECT(MODELSEAL_TEXT, modelseal_settings_set_text(settings, MODELSEAL_SET_KBS_URL, "\xff", 1, &error));
    EXPECT(MODELSEAL_LENGTH, modelseal_settings_set_text(settings, MODELSEAL_SET_KBS_URL, "x", SIZE_MAX / 2, &error));
    EXPECT(MODELSEAL_NULL_POINTER, modelseal_settings_set_text(settings, MODELSEAL_SET_KBS_URL, NULL, 1, &error));
    EXPECT(MODELSEAL_NULL_POINTER, modelseal_settings_set_text(settings, MODELSEAL_SET_KBS_URL, NULL, NTS, &error));
    OK(modelseal_settings_set_text(settings, MODELSEAL_SET_KBS_URL, NULL, 0, &error));
    EXPECT(MODELSEAL_NULL_POINTER, modelseal_settings_set_number(NULL, MODELSEAL_SET_THREADS, 1, &error));
    modelseal_settings_free(settings);
    EXPECT(MODELSEAL_HANDLE, modelseal_settings_set_number(settings, MODELSEAL_SET_THREADS, 1, &error));
    modelseal_settings_free(settings);
    modelseal_settings_free(NULL);
    EXPECT(MODELSEAL_NULL_POINTER, modelseal_settings_new(NULL, &error));
}

static void test_keys(const char *dir) {
    modelseal_key *key = NULL;
    const char *file = join(dir, "key");
    write_file(file, "ab01\nmore\n", 10);
    char reference[4096];
    snprintf(reference, sizeof reference, "hex:file:%s", file);
    OK(modelseal_key_from_reference(NULL, reference, NTS, &key, &error));
    modelseal_key_free(key);
    key = NULL;
    EXPECT(MODELSEAL_KEY_REFERENCE, modelseal_key_from_reference(NULL, "password", NTS, &key, &error));
    EXPECT(MODELSEAL_KEY, modelseal_key_from_reference(NULL, "env:MODELSEAL_NOT_SET", NTS, &key, &error));
    EXPECT(MODELSEAL_KEY_SOURCE, modelseal_key_from_reference(NULL, "kbs:///a/b/c", NTS, &key, &error));
    EXPECT(MODELSEAL_ARGUMENT, modelseal_key_from_bytes(NULL, 0, MODELSEAL_PASSWORD, &key, &error));
    EXPECT(MODELSEAL_ARGUMENT, modelseal_key_from_bytes((const uint8_t *)"x", 1, 3, &key, &error));
    EXPECT(MODELSEAL_LENGTH, modelseal_key_from_bytes((const uint8_t *)"x", 1, MODELSEAL_MASTER_KEY, &key, &error));
    EXPECT(MODELSEAL_LENGTH,
           modelseal_key_from_bytes((const uint8_t *)"x", SIZE_MAX, MODELSEAL_PASSWORD, &key, &error));
    EXPECT(MODELSEAL_NULL_POINTER, modelseal_key_from_bytes((const uint8_t *)"x", 1, 0, NULL, &error));
    CHECK(key == NULL);
    char secret[] = "a secret";
    modelseal_wipe((uint8_t *)secret, sizeof secret);
    CHECK(is_zero((const unsigned char *)secret, sizeof secret));
    modelseal_wipe(NULL, 0);
}

/* With the broker for development, where it is said to be. */
static void test_broker(void) {
    if (getenv("MODELSEAL_KBS_URL") == NULL) {
        return;
    }
    modelseal_settings *settings = NULL;
    OK(modelseal_settings_from_env(&settings, &error));
    modelseal_buffer *buffer = NULL;
    OK(modelseal_fetch(settings, "kbs:///default/model/key", NTS, &buffer, &error));
    const uint8_t *data = NULL;
    size_t len = 0;
    OK(modelseal_buffer_bytes(buffer, &data, &len, &error));
    CHECK(len == sizeof PASSWORD - 1 && memcmp(data, PASSWORD, len) == 0);
    modelseal_buffer_free(buffer);
    modelseal_key *key = NULL;
    OK(modelseal_key_from_reference(settings, "kbs:///default/model/key", NTS, &key, &error));
    modelseal_key_free(key);
    EXPECT(MODELSEAL_BROKER_RESOURCE, modelseal_fetch(settings, "kbs:///default/model/none", NTS, &buffer, &error));
    EXPECT(MODELSEAL_KEY, modelseal_fetch(settings, "env:HOME", NTS, &buffer, &error));
    OK(modelseal_settings_set_text(settings, MODELSEAL_SET_EVIDENCE, "tdx", NTS, &error));
    EXPECT(MODELSEAL_EVIDENCE, modelseal_fetch(settings, "kbs:///default/model/key", NTS, &buffer, &error));
    OK(modelseal_settings_set_text(settings, MODELSEAL_SET_KBS_URL, "http://127.0.0.1:9", NTS, &error));
    OK(modelseal_settings_set_number(settings, MODELSEAL_SET_KEY_TIMEOUT, 1, &error));
    CHECK(modelseal_fetch(settings, "kbs:///default/model/key", NTS, &buffer, NULL) != MODELSEAL_OK);
    modelseal_settings_free(settings);
}

static void test_seal(const char *dir, const char *format) {
    modelseal_settings *settings = make_settings(dir, format);
    modelseal_key *key = make_key();
    const char *source = join(dir, "model");
    calls heard = {0, 2, 0, 0, 0, ""};
    char name[64];
    snprintf(name, sizeof name, "cancelled-%s", format);
    const char *destination = join(dir, name);
    EXPECT(MODELSEAL_CANCELLED, modelseal_seal(settings, source, NTS, destination, NTS, key, on_progress, &heard, NULL,
                                               0, &error));
    CHECK(heard.count == 2 && heard.done < heard.total);
    modelseal_model *model = NULL;
    EXPECT(MODELSEAL_INCOMPLETE, modelseal_open(settings, destination, NTS, key, &model, &error));
    EXPECT(MODELSEAL_DESTINATION,
           modelseal_seal(settings, source, NTS, destination, NTS, key, NULL, NULL, NULL, 0, &error));

    OK(modelseal_settings_set_number(settings, MODELSEAL_SET_RESUME, 1, &error));
    calls again = {0, 0, 0, 0, 0, ""};
    modelseal_summary summary;
    memset(&summary, 0xff, sizeof summary);
    EXPECT(MODELSEAL_LENGTH, modelseal_seal(settings, source, NTS, destination, NTS, key, NULL, NULL, &summary, 1, &error));
    OK(modelseal_seal(settings, source, NTS, destination, NTS, key, on_progress, &again, &summary, sizeof summary,
                      &error));
    CHECK(again.done == again.total && again.total == summary.bytes);
    CHECK(summary.files == 5 && summary.dirs == 2 && summary.symlinks == 1);
    OK(modelseal_open(settings, destination, NTS, key, &model, &error));
    modelseal_model_free(model);

    EXPECT(MODELSEAL_NOT_FOUND,
           modelseal_seal(settings, "/nowhere/at/all", NTS, join(dir, "x"), NTS, key, NULL, NULL, NULL, 0, &error));
    EXPECT(MODELSEAL_SOURCE,
           modelseal_seal(settings, source, NTS, join(source, "x"), NTS, key, NULL, NULL, NULL, 0, &error));
    EXPECT(MODELSEAL_NULL_POINTER,
           modelseal_seal(settings, source, NTS, join(dir, "x"), NTS, NULL, NULL, NULL, NULL, 0, &error));
    /* A package is nothing without the ID of its key. */
    OK(modelseal_settings_set_number(settings, MODELSEAL_SET_RESUME, 0, &error));
    OK(modelseal_settings_set_text(settings, MODELSEAL_SET_FORMAT, "sam", NTS, &error));
    OK(modelseal_settings_set_text(settings, MODELSEAL_SET_KEY_ID, NULL, 0, &error));
    EXPECT(MODELSEAL_ARGUMENT,
           modelseal_seal(settings, source, NTS, join(dir, "x"), NTS, key, NULL, NULL, NULL, 0, &error));
    modelseal_key_free(key);
    modelseal_settings_free(settings);
}

static void test_open(const char *dir, const char *format) {
    const char *location = join(dir, format);
    modelseal_key *key = make_key();
    modelseal_key *wrong = NULL;
    OK(modelseal_key_from_bytes((const uint8_t *)"another", 7, MODELSEAL_PASSWORD, &wrong, &error));
    modelseal_model *model = NULL;
    int32_t refused = strcmp(format, "sam") == 0 ? MODELSEAL_PACKAGE_WRONG_KEY : MODELSEAL_VAULT_WRONG_KEY;
    EXPECT(refused, modelseal_open(NULL, location, NTS, wrong, &model, &error));
    EXPECT(MODELSEAL_NOT_SEALED, modelseal_open(NULL, join(dir, "model"), NTS, key, &model, &error));
    EXPECT(MODELSEAL_NOT_FOUND, modelseal_open(NULL, join(dir, "nothing"), NTS, key, &model, &error));
    EXPECT(MODELSEAL_LOCATION, modelseal_open(NULL, "ftp://somewhere/model", NTS, key, &model, &error));
    EXPECT(MODELSEAL_TEXT, modelseal_open(NULL, "a\0b", 3, key, &model, &error));
    EXPECT(MODELSEAL_HANDLE, modelseal_open((const modelseal_settings *)key, location, NTS, key, &model, &error));
    EXPECT(MODELSEAL_HANDLE, modelseal_open(NULL, location, NTS, (const modelseal_key *)dir, &model, &error));
    CHECK(model == NULL);
    modelseal_settings *settings = NULL;
    OK(modelseal_settings_new(&settings, &error));
    OK(modelseal_settings_set_number(settings, MODELSEAL_SET_SCRYPT_MEMORY, 4096, &error));
    EXPECT(MODELSEAL_SCRYPT_LIMIT, modelseal_open(settings, location, NTS, key, &model, &error));
    modelseal_settings_free(settings);
    modelseal_key_free(wrong);
    modelseal_key_free(key);
}

static void test_list(const modelseal_model *model) {
    modelseal_entries *entries = NULL;
    OK(modelseal_list(model, "", 0, 1, &entries, &error));
    size_t count = modelseal_entries_count(entries);
    CHECK(count == 8 && modelseal_entries_strays(entries) == 0);
    uint64_t bytes = 0;
    int latin = 0;
    for (size_t i = 0; i < count; i++) {
        modelseal_metadata metadata;
        OK(modelseal_entries_metadata(entries, i, &metadata, sizeof metadata, &error));
        const char *path = modelseal_entries_path(entries, i);
        modelseal_metadata again;
        OK(modelseal_stat(model, path, NTS, &again, sizeof again, &error));
        CHECK(memcmp(&metadata, &again, sizeof again) == 0);
        bytes += metadata.kind == MODELSEAL_FILE ? metadata.len : 0;
        latin += strcmp(path, "sub/caf\xe9") == 0;
    }
    CHECK(bytes == 14 + WEIGHTS_LEN + 1 + 8 + sizeof HEADER - 1 + 10 && latin == 1);
    modelseal_metadata metadata;
    EXPECT(MODELSEAL_ARGUMENT, modelseal_entries_metadata(entries, count, &metadata, sizeof metadata, &error));
    EXPECT(MODELSEAL_LENGTH, modelseal_entries_metadata(entries, 0, &metadata, 1, &error));
    CHECK(modelseal_entries_path(entries, count) == NULL);
    modelseal_entries_free(entries);
    CHECK(modelseal_entries_path(entries, 0) == NULL && modelseal_entries_count(entries) == 0);

    OK(modelseal_list(model, "sub", 3, 0, &entries, &error));
    CHECK(modelseal_entries_count(entries) == 2);
    modelseal_entries_free(entries);
    EXPECT(MODELSEAL_IO, modelseal_list(model, "config.json", NTS, 0, &entries, &error));
    EXPECT(MODELSEAL_LOCATION, modelseal_list(model, "../..", NTS, 0, &entries, &error));

    modelseal_buffer *target = NULL;
    OK(modelseal_read_link(model, "link", NTS, &target, &error));
    const uint8_t *data = NULL;
    size_t len = 0;
    OK(modelseal_buffer_bytes(target, &data, &len, &error));
    CHECK(len == 11 && memcmp(data, "config.json", len) == 0);
    EXPECT(MODELSEAL_NULL_POINTER, modelseal_buffer_bytes(target, NULL, &len, &error));
    modelseal_buffer_free(target);
    EXPECT(MODELSEAL_IO, modelseal_read_link(model, "config.json", NTS, &target, &error));
}

static void test_file(const modelseal_model *model) {
    modelseal_file *file = NULL;
    EXPECT(MODELSEAL_NOT_FOUND, modelseal_file_open(model, "nothing", NTS, &file, &error));
    EXPECT(MODELSEAL_IO, modelseal_file_open(model, "sub", NTS, &file, &error));
    OK(modelseal_file_open(model, "weights.bin", NTS, &file, &error));
    CHECK(modelseal_file_len(file) == WEIGHTS_LEN);
    unsigned char *wanted = pattern(WEIGHTS_LEN);
    unsigned char *data = (unsigned char *)malloc(WEIGHTS_LEN);
    CHECK(data != NULL);
    OK(modelseal_file_read(file, 0, data, WEIGHTS_LEN, &error));
    CHECK(memcmp(data, wanted, WEIGHTS_LEN) == 0);
    static const size_t ranges[][2] = {{0, 1}, {4095, 2}, {65535, 70000}, {1 << 20, (2 << 20) + 17}, {WEIGHTS_LEN, 0}};
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        OK(modelseal_file_read(file, ranges[i][0], data, ranges[i][1], &error));
        CHECK(memcmp(data, wanted + ranges[i][0], ranges[i][1]) == 0);
    }
    EXPECT(MODELSEAL_RANGE, modelseal_file_read(file, 1, data, WEIGHTS_LEN, &error));
    CHECK(is_zero(data, WEIGHTS_LEN));
    EXPECT(MODELSEAL_RANGE, modelseal_file_read(file, UINT64_MAX, data, 1, &error));
    EXPECT(MODELSEAL_NULL_POINTER, modelseal_file_read(file, 0, NULL, 1, &error));
    EXPECT(MODELSEAL_LENGTH, modelseal_file_read(file, 0, data, SIZE_MAX, &error));
    EXPECT(MODELSEAL_LENGTH, modelseal_file_read(file, 0, data, SIZE_MAX / 2, &error));
    OK(modelseal_file_read(file, 0, NULL, 0, &error));
    size_t done = 77;
    OK(modelseal_file_read_some(file, WEIGHTS_LEN - 3, data, 100, &done, &error));
    CHECK(done == 3 && memcmp(data, wanted + WEIGHTS_LEN - 3, 3) == 0);
    OK(modelseal_file_read_some(file, UINT64_MAX, data, 100, &done, &error));
    CHECK(done == 0);
    EXPECT(MODELSEAL_NULL_POINTER, modelseal_file_read_some(file, 0, data, 100, NULL, &error));

    int fd = -1;
    OK(modelseal_memfd(file, &fd, &error));
    modelseal_file_free(file);
    EXPECT(MODELSEAL_HANDLE, modelseal_file_read(file, 0, data, 1, &error));
    CHECK(modelseal_file_len(file) == 0);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(again >= 0);
    void *mapped = mmap(NULL, WEIGHTS_LEN, PROT_READ, MAP_SHARED, again, 0);
    CHECK(mapped != MAP_FAILED && memcmp(mapped, wanted, WEIGHTS_LEN) == 0);
    CHECK(mmap(NULL, WEIGHTS_LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
    CHECK(ftruncate(fd, 0) != 0);
    CHECK(munmap(mapped, WEIGHTS_LEN) == 0 && close(again) == 0 && close(fd) == 0);

    OK(modelseal_file_open(model, "sub/empty", NTS, &file, &error));
    OK(modelseal_file_read_some(file, 0, data, 10, &done, &error));
    CHECK(done == 0 && modelseal_file_len(file) == 0);
    modelseal_file_free(file);
    free(data);
    free(wanted);
}

static void test_stream(const modelseal_model *model) {
    modelseal_file *file = NULL;
    OK(modelseal_file_open(model, "weights.bin", NTS, &file, &error));
    FILE *stream = NULL;
    EXPECT(MODELSEAL_NULL_POINTER, modelseal_fopen(file, NULL, &error));
    OK(modelseal_fopen(file, &stream, &error));
    modelseal_file_free(file);
    unsigned char *wanted = pattern(WEIGHTS_LEN);
    unsigned char *data = (unsigned char *)malloc(WEIGHTS_LEN + 1);
    CHECK(data != NULL);
    static const size_t sizes[] = {1, 7, 4096, 65536, 300000, WEIGHTS_LEN + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_t at = 0;
        size_t done = 0;
        size_t most = sizes[i] < 100 ? 100000 : WEIGHTS_LEN;
        rewind(stream);
        while (at < most && (done = fread(data + at, 1, sizes[i] < WEIGHTS_LEN - at ? sizes[i] : WEIGHTS_LEN - at + 1, stream)) > 0) {
            at += done;
        }
        CHECK(at >= most && memcmp(data, wanted, at) == 0 && !ferror(stream));
    }
    CHECK(feof(stream));
    CHECK(fseek(stream, -5, SEEK_END) == 0 && ftell(stream) == (long)WEIGHTS_LEN - 5);
    CHECK(fgetc(stream) == wanted[WEIGHTS_LEN - 5]);
    CHECK(fseek(stream, 70000, SEEK_SET) == 0 && fgetc(stream) == wanted[70000]);
    CHECK(fseek(stream, -2, SEEK_CUR) == 0 && fgetc(stream) == wanted[69999]);
    CHECK(fseek(stream, -1, SEEK_SET) != 0);
    CHECK(fseek(stream, 1L << 40, SEEK_SET) == 0 && fgetc(stream) == EOF && feof(stream));
    CHECK(fclose(stream) == 0);

    OK(modelseal_file_open(model, "config.json", NTS, &file, &error));
    OK(modelseal_fopen(file, &stream, &error));
    modelseal_file_free(file);
    char line[64];
    CHECK(fgets(line, sizeof line, stream) != NULL && strcmp(line, "{\"layers\": 32}") == 0);
    CHECK(fputs("x", stream) == EOF || fflush(stream) == EOF);
    fclose(stream);
    free(data);
    free(wanted);
}

static void test_tensors(const modelseal_model *model) {
    modelseal_tensors *tensors = NULL;
    EXPECT(MODELSEAL_TENSORS, modelseal_tensors_open(model, "", 0, &tensors, &error));
    OK(modelseal_tensors_open(model, "tensors", NTS, &tensors, &error));
    CHECK(modelseal_tensors_count(tensors) == 2);
    size_t index = 9;
    EXPECT(MODELSEAL_TENSORS, modelseal_tensors_find(tensors, "c", 1, &index, &error));
    CHECK(index == 9);
    OK(modelseal_tensors_find(tensors, "b", 1, &index, &error));
    CHECK(index == 1);
    modelseal_tensor tensor;
    OK(modelseal_tensors_get(tensors, 0, &tensor, sizeof tensor, &error));
    CHECK(tensor.name_len == 1 && tensor.name[0] == 'a' && strcmp(tensor.dtype, "I8") == 0 && tensor.bits == 8);
    CHECK(tensor.dimensions == 2 && tensor.shape[0] == 2 && tensor.shape[1] == 3 && tensor.len == 6);
    CHECK(tensor.offset == 8 + sizeof HEADER - 1);
    CHECK(tensor.file_len == 25 && memcmp(tensor.file, "tensors/model.safetensors", 25) == 0);
    EXPECT(MODELSEAL_ARGUMENT, modelseal_tensors_get(tensors, 2, &tensor, sizeof tensor, &error));
    EXPECT(MODELSEAL_LENGTH, modelseal_tensors_get(tensors, 0, &tensor, sizeof tensor - 1, &error));
    uint8_t data[6] = {9, 9, 9, 9, 9, 9};
    OK(modelseal_tensors_read(tensors, 0, data, sizeof data, &error));
    CHECK(memcmp(data, "\1\2\3\4\5\6", 6) == 0);
    EXPECT(MODELSEAL_TENSORS, modelseal_tensors_read(tensors, 0, data, 5, &error));
    CHECK(is_zero(data, 5));
    OK(modelseal_tensors_read_rows(tensors, 0, 1, 2, data, 3, &error));
    CHECK(memcmp(data, "\4\5\6", 3) == 0);
    OK(modelseal_tensors_read_rows(tensors, 0, 1, 1, NULL, 0, &error));
    EXPECT(MODELSEAL_TENSORS, modelseal_tensors_read_rows(tensors, 0, 1, SIZE_MAX, data, 3, &error));
    EXPECT(MODELSEAL_TENSORS, modelseal_tensors_read_rows(tensors, 0, 2, 1, data, 3, &error));
    EXPECT(MODELSEAL_TENSORS, modelseal_tensors_read_rows(tensors, 1, 0, 1, data, 4, &error));
    float one = 0;
    OK(modelseal_tensors_read(tensors, 1, (uint8_t *)&one, sizeof one, &error));
    CHECK(one == 1.0f);
    modelseal_tensors_free(tensors);
    EXPECT(MODELSEAL_HANDLE, modelseal_tensors_read(tensors, 1, (uint8_t *)&one, sizeof one, &error));
}

static void test_licenses(const char *dir, const modelseal_model *vault, const modelseal_model *package) {
    modelseal_buffer *json = NULL;
    const uint8_t *data = NULL;
    size_t len = 0;
    OK(modelseal_licenses(NULL, join(dir, "sam"), NTS, &json, &error));
    OK(modelseal_buffer_bytes(json, &data, &len, &error));
    CHECK(len > 2 && data[0] == '[' && data[1] == '{' && data[len - 1] == ']');
    modelseal_buffer_free(json);
    OK(modelseal_licenses(NULL, join(dir, "sam/licenses/LD_Demo_0001.json"), NTS, &json, &error));
    modelseal_buffer_free(json);
    OK(modelseal_license_check(NULL, join(dir, "sam"), NTS, &json, &error));
    modelseal_buffer_free(json);
    OK(modelseal_model_license(package, &json, &error));
    OK(modelseal_buffer_bytes(json, &data, &len, &error));
    CHECK(len > 2 && data[0] == '{');
    modelseal_buffer_free(json);
    json = NULL;
    EXPECT(MODELSEAL_FORMAT, modelseal_model_license(vault, &json, &error));
    EXPECT(MODELSEAL_FORMAT, modelseal_licenses(NULL, join(dir, "gocryptfs"), NTS, &json, &error));
    modelseal_settings *settings = NULL;
    OK(modelseal_settings_new(&settings, &error));
    OK(modelseal_settings_set_number(settings, MODELSEAL_SET_MIN_SERIAL, (uint64_t)1 << 52, &error));
    EXPECT(MODELSEAL_SERIAL, modelseal_license_check(settings, join(dir, "sam"), NTS, &json, &error));
    OK(modelseal_settings_set_number(settings, MODELSEAL_SET_MIN_SERIAL, 0, &error));
    /* The public half of another key. */
    EXPECT(MODELSEAL_ARGUMENT, modelseal_settings_set_text(settings, MODELSEAL_SET_ISSUER, "AAAA", NTS, &error));
    OK(modelseal_settings_set_text(settings, MODELSEAL_SET_ISSUER, "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", NTS,
                                   &error));
    EXPECT(MODELSEAL_ISSUER, modelseal_license_check(settings, join(dir, "sam"), NTS, &json, &error));
    CHECK(json == NULL);
    modelseal_settings_free(settings);
    damage_file(join(dir, "sam/licenses/LD_Demo_0001.json"), -3, SEEK_END);
    CHECK(modelseal_license_check(NULL, join(dir, "sam"), NTS, &json, NULL) != MODELSEAL_OK);
    damage_file(join(dir, "sam/licenses/LD_Demo_0001.json"), -3, SEEK_END);
}

static void test_verify(const char *dir, const modelseal_model *vault, const modelseal_model *package) {
    const modelseal_model *models[] = {vault, package};
    modelseal_summary summary;
    for (size_t i = 0; i < 2; i++) {
        calls heard = {0, 0, 0, 0, 0, ""};
        OK(modelseal_verify(models[i], "", 0, on_progress, NULL, &heard, &summary, sizeof summary, &error));
        CHECK(summary.files == 5 && summary.symlinks == 1 && heard.count > 0);
        calls cancel = {0, 1, 0, 0, 0, ""};
        EXPECT(MODELSEAL_CANCELLED, modelseal_verify(models[i], "", 0, on_progress, NULL, &cancel, NULL, 0, &error));
    }
    OK(modelseal_verify_without_key(NULL, join(dir, "sam"), NTS, NULL, NULL, NULL, &summary, sizeof summary, &error));
    EXPECT(MODELSEAL_FORMAT, modelseal_verify_without_key(NULL, join(dir, "gocryptfs"), NTS, NULL, NULL, NULL, NULL, 0,
                                                          &error));

    /* A bit of the weights: verifying tells it, reading zeroes, and a stream says EIO and tells the log. */
    const char *stored = join(dir, "sam/content/weights.bin");
    damage_file(stored, 4096 + (2 << 20), SEEK_SET);
    calls heard = {0, 0, 0, 0, 0, ""};
    EXPECT(MODELSEAL_DAMAGED, modelseal_verify(package, "", 0, NULL, on_damage, &heard, &summary, sizeof summary, &error));
    CHECK(heard.count == 1 && strcmp(heard.text, "weights.bin") == 0 && heard.status != MODELSEAL_OK);
    EXPECT(MODELSEAL_DAMAGED,
           modelseal_verify_without_key(NULL, join(dir, "sam"), NTS, NULL, NULL, NULL, NULL, 0, &error));
    modelseal_file *file = NULL;
    OK(modelseal_file_open(package, "weights.bin", NTS, &file, &error));
    unsigned char *data = pattern(WEIGHTS_LEN);
    EXPECT(MODELSEAL_AUTHENTICATION, modelseal_file_read(file, 0, data, WEIGHTS_LEN, &error));
    CHECK(is_zero(data, WEIGHTS_LEN));
    calls logged = {0, 0, 0, 0, 0, ""};
    EXPECT(MODELSEAL_ARGUMENT, modelseal_set_log(on_log, &logged, 6, &error));
    OK(modelseal_set_log(on_log, &logged, MODELSEAL_LOG_WARN, &error));
    FILE *stream = NULL;
    OK(modelseal_fopen(file, &stream, &error));
    modelseal_file_free(file);
    CHECK(fseek(stream, 2 << 20, SEEK_SET) == 0);
    errno = 0;
    CHECK(fread(data, 1, 100, stream) == 0 && ferror(stream) && errno == EIO);
    CHECK(logged.count == 1 && strstr(logged.text, "weights.bin") != NULL && logged.status == MODELSEAL_ARGUMENT);
    CHECK(fclose(stream) == 0);
    OK(modelseal_set_log(NULL, NULL, MODELSEAL_LOG_OFF, &error));
    free(data);
    damage_file(stored, 4096 + (2 << 20), SEEK_SET);
}

/* Handles that are none, or of something else. */
static void test_misuse(const modelseal_model *model) {
    modelseal_file *file = NULL;
    OK(modelseal_file_open(model, "config.json", NTS, &file, &error));
    modelseal_entries *entries = NULL;
    EXPECT(MODELSEAL_HANDLE, modelseal_list((const modelseal_model *)file, "", 0, 0, &entries, &error));
    uint8_t byte = 7;
    EXPECT(MODELSEAL_HANDLE, modelseal_file_read((const modelseal_file *)model, 0, &byte, 1, &error));
    EXPECT(MODELSEAL_HANDLE, modelseal_file_read((const modelseal_file *)&byte, 0, &byte, 1, &error));
    EXPECT(MODELSEAL_NULL_POINTER, modelseal_file_read(NULL, 0, &byte, 1, &error));
    modelseal_model_free((modelseal_model *)file);
    modelseal_error_free((modelseal_error *)file);
    OK(modelseal_file_read(file, 0, &byte, 1, &error));
    CHECK(byte == '{');
    modelseal_file_free(file);
    modelseal_file_free(file);
    CHECK(modelseal_error_message(NULL) == NULL && modelseal_error_status(NULL) == MODELSEAL_HANDLE);
    modelseal_error_free(NULL);

    /* An error has its causes. */
    CHECK(modelseal_file_open(model, "no/such/file", NTS, &file, &error) != MODELSEAL_OK);
    size_t depth = 0;
    while (modelseal_error_cause(error, depth) != NULL) {
        CHECK(strstr(modelseal_error_message(error), modelseal_error_cause(error, depth)) != NULL);
        depth++;
    }
    CHECK(depth >= 2);
    CHECK(modelseal_error_os(error) >= 0);
    modelseal_error_free(error);
    CHECK(modelseal_error_message(error) == NULL);
    error = NULL;
}

/* A child of fork goes on with what its parent has opened. */
static void test_fork(const modelseal_model *model) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        modelseal_file *file = NULL;
        uint8_t byte = 0;
        int fine = modelseal_file_open(model, "config.json", NTS, &file, NULL) == MODELSEAL_OK &&
                   modelseal_file_read(file, 0, &byte, 1, NULL) == MODELSEAL_OK && byte == '{';
        /* Not an end at which valgrind looks for leaks: what the parent's threads had is lost here. */
        CHECK(fine && kill(getpid(), SIGKILL) == 0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    const char *dir = argv[1];
    test_versions();
    test_settings();
    test_keys(dir);
    test_broker();
    make_model(dir);
    modelseal_model *vault = make_sealed(dir, "gocryptfs");
    modelseal_model *package = make_sealed(dir, "sam");
    const char *formats[] = {"gocryptfs", "sam"};
    const modelseal_model *models[] = {vault, package};
    for (size_t i = 0; i < 2; i++) {
        test_seal(dir, formats[i]);
        test_open(dir, formats[i]);
        test_list(models[i]);
        test_file(models[i]);
        test_stream(models[i]);
        test_tensors(models[i]);
        test_misuse(models[i]);
        test_fork(models[i]);
    }
    test_licenses(dir, vault, package);
    test_verify(dir, vault, package);
    modelseal_model_free(vault);
    modelseal_model_free(package);
    CHECK(modelseal_live_handles() == 0);
    puts("suite: all holds");
    return 0;
}
