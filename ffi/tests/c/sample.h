/* A model to be sealed, and sealed. */
#ifndef SAMPLE_H
#define SAMPLE_H

#include "check.h"

/* Plaintext of weights.bin: more than one group of chunks. */
#define WEIGHTS_LEN ((size_t)(3 << 20) + 17)

#define PASSWORD "correct horse, 4 batteries"

/* A file with two tensors: "a", 2 x 3 of I8, and "b", a single number of F32. */
#define HEADER "{\"a\":{\"dtype\":\"I8\",\"shape\":[2,3],\"data_offsets\":[0,6]}," \
    "\"b\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[6,10]}}"

/* The key of RFC 8410, section 10.3: in no way a secret. */
static const char ISSUER_PEM[] = "-----BEGIN PRIVATE KEY-----\n"
                                 "MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n"
                                 "-----END PRIVATE KEY-----\n";

/* Makes the directory dir/model. */
static inline void make_model(const char *dir) {
    const char *model = join(dir, "model");
    make_dir(model);
    write_file(join(model, "config.json"), "{\"layers\": 32}", 14);
    unsigned char *weights = pattern(WEIGHTS_LEN);
    write_file(join(model, "weights.bin"), weights, WEIGHTS_LEN);
    free(weights);
    make_dir(join(model, "sub"));
    write_file(join(model, "sub/empty"), "", 0);
    /* A name that is not UTF-8. */
    write_file(join(model, "sub/caf\xe9"), "x", 1);
    CHECK(symlink("config.json", join(model, "link")) == 0);
    make_dir(join(model, "tensors"));
    unsigned char file[8 + sizeof HEADER - 1 + 10] = {(unsigned char)(sizeof HEADER - 1)};
    memcpy(file + 8, HEADER, sizeof HEADER - 1);
    memcpy(file + 8 + sizeof HEADER - 1, "\1\2\3\4\5\6\0\0\x80\x3f", 10);
    write_file(join(model, "tensors/model.safetensors"), file, sizeof file);
    write_file(join(dir, "issuer.pem"), ISSUER_PEM, sizeof ISSUER_PEM - 1);
}

static inline modelseal_key *make_key(void) {
    modelseal_key *key = NULL;
    OK(modelseal_key_from_bytes((const uint8_t *)PASSWORD, sizeof PASSWORD - 1, MODELSEAL_PASSWORD, &key, &error));
    return key;
}

/* Settings that are quick, for a vault or a package. */
static inline modelseal_settings *make_settings(const char *dir, const char *format) {
    modelseal_settings *settings = NULL;
    OK(modelseal_settings_new(&settings, &error));
    int package = strcmp(format, "sam") == 0;
    OK(modelseal_settings_set_text(settings, MODELSEAL_SET_FORMAT, format, NTS, &error));
    OK(modelseal_settings_set_number(settings, MODELSEAL_SET_SCRYPT_LOG_N, package ? 14 : 10, &error));
    OK(modelseal_settings_set_number(settings, MODELSEAL_SET_THREADS, 2, &error));
    OK(modelseal_settings_set_number(settings, MODELSEAL_SET_READ_AHEAD, 256 << 10, &error));
    OK(modelseal_settings_set_text(settings, MODELSEAL_SET_SYMLINKS, "keep", 4, &error));
    if (package) {
        OK(modelseal_settings_set_text(settings, MODELSEAL_SET_KEY_ID, "LD_Demo_0001", NTS, &error));
        const char *issuer = join(dir, "issuer.pem");
        OK(modelseal_settings_set_text(settings, MODELSEAL_SET_ISSUER_KEY, issuer, strlen(issuer), &error));
    }
    return settings;
}

/* Seals dir/model as dir/format, and opens it. */
static inline modelseal_model *make_sealed(const char *dir, const char *format) {
    modelseal_settings *settings = make_settings(dir, format);
    modelseal_key *key = make_key();
    const char *location = join(dir, format);
    OK(modelseal_seal(settings, join(dir, "model"), NTS, location, NTS, key, NULL, NULL, NULL, 0, &error));
    modelseal_model *model = NULL;
    OK(modelseal_open(settings, location, NTS, key, &model, &error));
    modelseal_key_free(key);
    modelseal_settings_free(settings);
    return model;
}

#endif
