/*
 * Lists a sealed model with the SHA-256 of every file: `digest MODEL KEY-REFERENCE`
 *
 * Files are read through FILE *, as any C code reads files; sha256sum digests them. The output is that of `sha256sum` in
 * the plain directory.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <modelseal.h>

enum { PIECE = 1 << 16 };

static void expect_ok(int32_t code, modelseal_error *error) {
    if (code != MODELSEAL_OK) {
        fprintf(stderr, "%s: %s\n", modelseal_status_name(code), modelseal_error_message(error));
        exit(1);
    }
}

/* What deserves attention, such as what is damaged in a file that is read through a stream. */
static void on_log(void *user, int32_t level, const char *message) {
    (void)user;
    fprintf(stderr, "%s: %s\n", level == MODELSEAL_LOG_ERROR ? "error" : "warning", message);
}

/* Prints the digest of all that a stream has. */
static void digest(FILE *stream) {
    static char piece[PIECE];
    fflush(stdout);
    FILE *sum = popen("sha256sum | cut -c 1-64 | tr -d '\\n'", "w");
    if (sum == NULL) {
        perror("sha256sum");
        exit(1);
    }
    size_t len;
    while ((len = fread(piece, 1, sizeof piece, stream)) > 0) {
        fwrite(piece, 1, len, sum);
    }
    if (ferror(stream)) {
        perror("reading");
        exit(1);
    }
    if (pclose(sum) != 0) {
        exit(1);
    }
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s MODEL KEY-REFERENCE\n", argv[0]);
        return 2;
    }
    modelseal_error *error = NULL;
    modelseal_settings *settings = NULL;
    modelseal_key *key = NULL;
    modelseal_model *model = NULL;
    modelseal_entries *entries = NULL;
    expect_ok(modelseal_check(&error), error);
    expect_ok(modelseal_set_log(on_log, NULL, MODELSEAL_LOG_WARN, &error), error);
    expect_ok(modelseal_settings_from_env(&settings, &error), error);
    expect_ok(modelseal_key_from_reference(settings, argv[2], MODELSEAL_NUL_TERMINATED, &key, &error), error);
    expect_ok(modelseal_open(settings, argv[1], MODELSEAL_NUL_TERMINATED, key, &model, &error), error);
    expect_ok(modelseal_list(model, "", 0, 1, &entries, &error), error);

    uint64_t bytes = 0;
    for (size_t i = 0; i < modelseal_entries_count(entries); i++) {
        modelseal_metadata metadata;
        expect_ok(modelseal_entries_metadata(entries, i, &metadata, sizeof metadata, &error), error);
        if (metadata.kind != MODELSEAL_FILE) {
            continue;
        }
        const char *path = modelseal_entries_path(entries, i);
        modelseal_file *file = NULL;
        FILE *stream = NULL;
        expect_ok(modelseal_file_open(model, path, MODELSEAL_NUL_TERMINATED, &file, &error), error);
        expect_ok(modelseal_fopen(file, &stream, &error), error);
        modelseal_file_free(file);
        digest(stream);
        printf("  %s\n", path);
        fclose(stream);
        bytes += metadata.len;
    }
    fprintf(stderr, "%" PRIu64 " bytes\n", bytes);

    modelseal_entries_free(entries);
    modelseal_model_free(model);
    modelseal_key_free(key);
    modelseal_settings_free(settings);
    return 0;
}
