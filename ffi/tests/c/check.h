/* What the tests share: checks that end the program, and files. Compiles as C11 and as C++17. */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "modelseal.h"

#define NTS MODELSEAL_NUL_TERMINATED

#define CHECK(condition) check((condition), #condition, __FILE__, __LINE__)
/* Calls a function whose last argument is &error, and expects a status. */
#define EXPECT(status, call) expect((status), (call), #call, __FILE__, __LINE__)
#define OK(call) EXPECT(MODELSEAL_OK, call)

static modelseal_error *error = NULL;

static inline void check(int holds, const char *what, const char *file, int line) {
    if (!holds) {
        fprintf(stderr, "%s:%d: %s does not hold\n", file, line, what);
        exit(1);
    }
}

static inline void expect(int32_t wanted, int32_t status, const char *call, const char *file, int line) {
    if (status != wanted) {
        const char *message = modelseal_error_message(error);
        fprintf(stderr, "%s:%d: %s\n  is %d (%s), not %d: %s\n", file, line, call, status, modelseal_status_name(status),
                wanted, message == NULL ? "no error" : message);
        exit(1);
    }
    if (status == MODELSEAL_OK) {
        check(error == NULL, "no error", file, line);
    } else {
        check(modelseal_error_status(error) == status, "the error has the status", file, line);
        check(strlen(modelseal_error_message(error)) > 0, "the error has a message", file, line);
        modelseal_error_free(error);
        error = NULL;
    }
}

/* dir/name, in one of a few places that are used in turn. */
static inline const char *join(const char *dir, const char *name) {
    static char places[64][1024];
    static unsigned next = 0;
    char *place = places[next++ % 64];
    size_t dir_len = strlen(dir);
    size_t name_len = strlen(name);
    CHECK(dir_len + name_len + 2 <= sizeof places[0]);
    memmove(place, dir, dir_len);
    place[dir_len] = '/';
    memmove(place + dir_len + 1, name, name_len + 1);
    return place;
}

static inline void write_file(const char *path, const void *data, size_t len) {
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL);
    CHECK(fwrite(data, 1, len, file) == len);
    CHECK(fclose(file) == 0);
}

/* Turns one bit of a file. */
static inline void damage_file(const char *path, long offset, int whence) {
    FILE *file = fopen(path, "r+b");
    CHECK(file != NULL);
    CHECK(fseek(file, offset, whence) == 0);
    int byte = fgetc(file);
    CHECK(byte != EOF);
    CHECK(fseek(file, -1, SEEK_CUR) == 0);
    CHECK(fputc(byte ^ 1, file) != EOF);
    CHECK(fclose(file) == 0);
}

static inline void make_dir(const char *path) {
    CHECK(mkdir(path, 0700) == 0);
}

/* Bytes that differ everywhere. */
static inline unsigned char *pattern(size_t len) {
    unsigned char *data = (unsigned char *)malloc(len + 1);
    CHECK(data != NULL);
    uint32_t state = 1;
    for (size_t i = 0; i < len; i++) {
        state = state * 1664525u + 1013904223u;
        data[i] = (unsigned char)(state >> 24);
    }
    return data;
}

static inline int is_zero(const unsigned char *data, size_t len) {
    for (size_t i = 0; i < len; i++) {
        if (data[i] != 0) {
            return 0;
        }
    }
    return 1;
}

#endif
