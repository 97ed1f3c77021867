/* Sixteen threads on one handle each of a model, a file and tensors. `threads DIR [large]`; the model in DIR is made where
 * it is missing.
 *
 * Small reads stay on the thread that asks for them; large ones are handed to other threads. */
#include <pthread.h>

#include "sample.h"

#define THREADS 16

typedef struct shared {
    const modelseal_model *model;
    const modelseal_file *file;
    const modelseal_tensors *tensors;
    const unsigned char *wanted;
    size_t most;
    int rounds;
} shared;

static void *work(void *argument) {
    const shared *all = (const shared *)argument;
    unsigned char *data = (unsigned char *)malloc(all->most);
    CHECK(data != NULL);
    for (int i = 0; i < all->rounds; i++) {
        size_t offset = ((size_t)i * 7919 * 13) % (WEIGHTS_LEN - all->most);
        size_t len = 1 + ((size_t)i * 104729) % all->most;
        CHECK(modelseal_file_read(all->file, offset, data, len, NULL) == MODELSEAL_OK);
        CHECK(memcmp(data, all->wanted + offset, len) == 0);
        uint8_t row[3];
        CHECK(modelseal_tensors_read_rows(all->tensors, 0, 1, 2, row, 3, NULL) == MODELSEAL_OK);
        CHECK(memcmp(row, "\4\5\6", 3) == 0);
        modelseal_file *own = NULL;
        CHECK(modelseal_file_open(all->model, "config.json", NTS, &own, NULL) == MODELSEAL_OK);
        CHECK(modelseal_file_read(own, 0, data, 1, NULL) == MODELSEAL_OK && data[0] == '{');
        modelseal_error *failed = NULL;
        CHECK(modelseal_file_read(own, 100, data, 1, &failed) == MODELSEAL_RANGE);
        CHECK(modelseal_error_status(failed) == MODELSEAL_RANGE && modelseal_error_message(failed) != NULL);
        modelseal_error_free(failed);
        modelseal_file_free(own);
    }
    free(data);
    return NULL;
}

/* Handles that one thread frees while others use them: every call does what it shall, or tells. */
static void *use_until_freed(void *argument) {
    const modelseal_file *file = (const modelseal_file *)argument;
    uint8_t byte = 0;
    int32_t status;
    while ((status = modelseal_file_read(file, 0, &byte, 1, NULL)) == MODELSEAL_OK) {
        CHECK(byte == '{');
    }
    CHECK(status == MODELSEAL_HANDLE);
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc == 2 || argc == 3);
    const char *dir = argv[1];
    int large = argc == 3;
    modelseal_model *model = NULL;
    if (access(join(dir, "gocryptfs"), F_OK) == 0) {
        modelseal_key *key = make_key();
        OK(modelseal_open(NULL, join(dir, "gocryptfs"), NTS, key, &model, &error));
        modelseal_key_free(key);
    } else {
        make_model(dir);
        model = make_sealed(dir, "gocryptfs");
    }
    modelseal_file *file = NULL;
    OK(modelseal_file_open(model, "weights.bin", NTS, &file, &error));
    modelseal_tensors *tensors = NULL;
    OK(modelseal_tensors_open(model, "tensors", NTS, &tensors, &error));
    unsigned char *wanted = pattern(WEIGHTS_LEN);
    shared all = {model, file, tensors, wanted, large ? (size_t)3 << 20 : (size_t)20000, 10};
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, work, &all) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    if (large) {
        for (int round = 0; round < 20; round++) {
            modelseal_file *config = NULL;
            OK(modelseal_file_open(model, "config.json", NTS, &config, &error));
            for (int i = 0; i < 4; i++) {
                CHECK(pthread_create(&threads[i], NULL, use_until_freed, config) == 0);
            }
            modelseal_file_free(config);
            for (int i = 0; i < 4; i++) {
                CHECK(pthread_join(threads[i], NULL) == 0);
            }
        }
    }
    free(wanted);
    modelseal_tensors_free(tensors);
    modelseal_file_free(file);
    modelseal_model_free(model);
    CHECK(modelseal_live_handles() == 0);
    puts("threads: all holds");
    return 0;
}
