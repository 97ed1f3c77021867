/*
 * modelseal: encrypted model weights.
 *
 * Written by cbindgen from the sources of the crate modelseal-ffi; its README.md says how to build and link.
 *
 * Conventions, where a function does not say otherwise:
 *
 * Status. Functions that can fail return MODELSEAL_OK (0) or another MODELSEAL_... status. The last argument then gets
 *   an error, unless it is NULL; it is to be freed by modelseal_error_free. Nothing is written to it on success, so it is
 *   best NULL before the call. No function panics or throws.
 * Results. Arguments come before results, and results are written on success only.
 * Handles. Objects are known by handles, which are no addresses: never look into them. A handle that was freed, is none or
 *   is of something else is always told (MODELSEAL_HANDLE); NULL is MODELSEAL_NULL_POINTER. What a function hands over is
 *   the caller's, to be freed by the function ..._free of its type, which takes NULL and what was freed before. Handles can
 *   be freed in any order, also while another thread uses them: whatever still needs an object keeps it.
 * Bytes. Data is a pointer and a length; NULL with a length of 0 is no data. Texts are UTF-8, paths are the system's bytes;
 *   their length may be MODELSEAL_NUL_TERMINATED. What is passed in is not needed any more when the function returns, but for
 *   the user pointer of modelseal_set_log.
 * Threads. Any number of threads may call any function at once, with the same handles. They share no memory that is written
 *   to but the caller's own buffers. A process that was made by fork can go on using handles, unless another thread was
 *   opening or freeing one at that moment; what was opened in object storage cannot be read there.
 * Memory. The library takes as little as it can; where the system has no more for small things, the process ends.
 */


#ifndef MODELSEAL_H
#define MODELSEAL_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/** Stands for the length of a text or a path that ends with a NUL. */
#define MODELSEAL_NUL_TERMINATED SIZE_MAX

/**
 * Checks that the library is one that this header is for: `modelseal_check(&error)`, as `modelseal_check_version`.
 */
#define modelseal_check(error) \
    modelseal_check_version(MODELSEAL_VERSION_MAJOR, MODELSEAL_VERSION_MINOR, MODELSEAL_VERSION_PATCH, (error))

/** Major number of the version that this header belongs to. */
#define MODELSEAL_VERSION_MAJOR 0

/** Minor number of the version that this header belongs to. */
#define MODELSEAL_VERSION_MINOR 1

/** Patch number of the version that this header belongs to. */
#define MODELSEAL_VERSION_PATCH 0

/** Success. */
#define MODELSEAL_OK 0

/** A fault in the library. Nothing is known of what was asked for, and the handles can still be freed. */
#define MODELSEAL_PANIC 1

/** A pointer is NULL that must not be. */
#define MODELSEAL_NULL_POINTER 2

/** A handle is none, was freed, or is one of something else. */
#define MODELSEAL_HANDLE 3

/** A text is not UTF-8, or a path has a NUL in it. */
#define MODELSEAL_TEXT 4

/** A length is out of bounds. */
#define MODELSEAL_LENGTH 5

/** An argument is not one of those that there are, or not in its bounds. */
#define MODELSEAL_ARGUMENT 6

/** The library is another one than the header that the program was compiled with. */
#define MODELSEAL_VERSION 7

/** The library was built without what is asked for. */
#define MODELSEAL_UNSUPPORTED 8

/** Something that was verified is damaged. The error is the first that was found. */
#define MODELSEAL_DAMAGED 9

/** Stored bytes do not verify: they were altered, or the key is another one. */
#define MODELSEAL_AUTHENTICATION 100

/** A range is not within its file. */
#define MODELSEAL_RANGE 101

/** A file changed while it was read. */
#define MODELSEAL_CHANGED 102

/** A callback called it off. */
#define MODELSEAL_CANCELLED 103

/** Reading or writing failed; `modelseal_error_os` says why. */
#define MODELSEAL_IO 104

/** There is no such file. */
#define MODELSEAL_NOT_FOUND 105

/** Memory is short. */
#define MODELSEAL_MEMORY 106

/** scrypt parameters take more than `MODELSEAL_SET_SCRYPT_MEMORY` allows. */
#define MODELSEAL_SCRYPT_LIMIT 107

/** The system has no random bytes or threads to give, or the ciphers failed. */
#define MODELSEAL_SYSTEM 108

/** A vault's `gocryptfs.conf` is not valid, or of a kind that is not supported. */
#define MODELSEAL_VAULT_CONF 200

/** The password or the master key is another one than the vault's. */
#define MODELSEAL_VAULT_WRONG_KEY 201

/** A key that no vault has: empty, too long, or no master key. */
#define MODELSEAL_VAULT_KEY 202

/** Names of a vault are damaged, or cannot be stored in one. */
#define MODELSEAL_VAULT_NAME 203

/** Content of a vault is damaged. */
#define MODELSEAL_VAULT_CONTENT 204

/** A document of a package is not valid, or of another version. */
#define MODELSEAL_PACKAGE_DOCUMENT 300

/** A package has not the files that its manifest lists. */
#define MODELSEAL_PACKAGE_FILES 301

/** Content of a package is damaged, or not what its issuer signed. */
#define MODELSEAL_PACKAGE_CONTENT 302

/** A package's parts do not belong together. */
#define MODELSEAL_PACKAGE_PARTS 303

/** The key is another one than the license was issued for. */
#define MODELSEAL_PACKAGE_WRONG_KEY 304

/** A key that no package has: too short or too long. */
#define MODELSEAL_PACKAGE_KEY 305

/** The signature of a license or of a manifest is not its issuer's. */
#define MODELSEAL_SIGNATURE 310

/** A license or a manifest was issued by somebody who is not trusted. */
#define MODELSEAL_ISSUER 311

/** A license or a manifest is older than is allowed. */
#define MODELSEAL_SERIAL 312

/** A license is not valid yet, or not any more. */
#define MODELSEAL_LICENSE_WINDOW 313

/** A license is for other machines, or this one has no identity. */
#define MODELSEAL_LICENSE_MACHINE 314

/** A license is for other TDs, or there are no measurements of this one. */
#define MODELSEAL_LICENSE_TDX 315

/** There is no license, not that one, or more than one. */
#define MODELSEAL_LICENSE_CHOICE 316

/** A license cannot be issued like that. */
#define MODELSEAL_LICENSE_TERMS 317

/** Something that is not the key of an issuer. */
#define MODELSEAL_ISSUER_KEY 318

/** This machine gives no evidence of what it is. */
#define MODELSEAL_EVIDENCE 400

/** A setting for the broker cannot be used. */
#define MODELSEAL_BROKER_SETTING 401

/** Nothing answers at the broker's address. */
#define MODELSEAL_BROKER_UNREACHABLE 402

/** There is no TLS connection to the broker, or none to who should be there. */
#define MODELSEAL_BROKER_TLS 403

/** There was no answer in time. */
#define MODELSEAL_BROKER_DEADLINE 404

/** What answers is no key broker, or one of another version. */
#define MODELSEAL_BROKER_PROTOCOL 405

/** The broker does not take the evidence. */
#define MODELSEAL_BROKER_REFUSED 406

/** The broker's policy does not let this machine have the resource. */
#define MODELSEAL_BROKER_POLICY 407

/** The broker has no such resource. */
#define MODELSEAL_BROKER_RESOURCE 408

/** The broker, or a service of this guest, failed in another way. */
#define MODELSEAL_BROKER_FAILED 409

/** A key reference does not parse. */
#define MODELSEAL_KEY_REFERENCE 500

/** A key reference leads to no key. */
#define MODELSEAL_KEY 501

/** What key references need is missing or wrong. */
#define MODELSEAL_KEY_SOURCE 502

/** A kind of key that does not go with what is asked for. */
#define MODELSEAL_KEY_KIND 503

/** A location, or a path in a model, that cannot be one. */
#define MODELSEAL_LOCATION 504

/** What lies there is no sealed model. */
#define MODELSEAL_NOT_SEALED 505

/** What lies there was never completed. */
#define MODELSEAL_INCOMPLETE 506

/** The model's format does not have what is asked for. */
#define MODELSEAL_FORMAT 507

/** A vault is not as its signed manifest says. */
#define MODELSEAL_MANIFEST 508

/** Something cannot be sealed. */
#define MODELSEAL_SOURCE 509

/** A destination is not empty, or cannot be gone on with. */
#define MODELSEAL_DESTINATION 510

/** Another run writes to the destination. */
#define MODELSEAL_BUSY 511

/** The tensors of a model are not as they must be, or not what was asked for. */
#define MODELSEAL_TENSORS 512

/** Something else went wrong; the message says what. */
#define MODELSEAL_OTHER 599



/** Nothing is logged. */
#define MODELSEAL_LOG_OFF 0

/** What failed and is not told in another way. */
#define MODELSEAL_LOG_ERROR 1

/** And what deserves a person's attention. */
#define MODELSEAL_LOG_WARN 2

/** And what was done. */
#define MODELSEAL_LOG_INFO 3

/** And what helps to find faults. */
#define MODELSEAL_LOG_DEBUG 4

/** And everything else. */
#define MODELSEAL_LOG_TRACE 5

/** Text: the key broker of `kbs:` references, `http(s)://host[:port][/prefix]`. */
#define MODELSEAL_SET_KBS_URL 1

/**
 * Text: a PEM file of CA certificates that the broker's may be signed by, besides those that the system trusts.
 */
#define MODELSEAL_SET_KBS_CA 2

/** Text: what evidence the broker is given, "tdx" unless set; "sample" proves nothing. */
#define MODELSEAL_SET_EVIDENCE 3

/** Text: an API key for what stands before the broker. */
#define MODELSEAL_SET_API_KEY 4

/** Text: where the guest's own services listen, for `cdh:` references. */
#define MODELSEAL_SET_CDH_URL 5

/** Text: the one version of the broker's protocol that is spoken. */
#define MODELSEAL_SET_KBS_PROTOCOL 6

/** Text: what the broker seals to, "p256" unless set, "p521" or "rsa-oaep-256". */
#define MODELSEAL_SET_TEE_KEY 7

/**
 * Text: what becomes of an event log that does not fit the quote: "leave-out" unless set, "warn" or "fail".
 */
#define MODELSEAL_SET_EVENT_LOG 8

/** Text: the TOML file that the guest was launched with, where its digest is in the evidence. */
#define MODELSEAL_SET_INIT_DATA 9

/** Text: a JSON file about this instance, for the audit log of the openanolis fork. */
#define MODELSEAL_SET_INSTANCE_INFO 10

/** Number: seconds that a key may take. */
#define MODELSEAL_SET_KEY_TIMEOUT 11

/** Text: the license that a package is opened with, the ID of one in it or a file. */
#define MODELSEAL_SET_LICENSE 20

/**
 * Text: the issuers that are trusted: their public keys in base64 or PEM, or files with them in PEM, with commas between
 * them. Without one, whoever knows the key can have issued the license and made the content.
 */
#define MODELSEAL_SET_ISSUER 21

/**
 * Number: the least serial of a license, or of a vault's manifest. Without it an older package is taken as well.
 */
#define MODELSEAL_SET_MIN_SERIAL 22

/** Text: the identity of this machine, instead of its own. */
#define MODELSEAL_SET_MACHINE 23

/** Text: the signed manifest that a vault must agree with. */
#define MODELSEAL_SET_MANIFEST 24

/** Number: bytes of memory that the scrypt parameters of a model may ask for, 1 GiB unless set. */
#define MODELSEAL_SET_SCRYPT_MEMORY 25

/** Text: how stored bytes are read: "auto" unless set, "copy" never borrows the page cache. */
#define MODELSEAL_SET_READ_MODE 26

/**
 * Number: threads that decrypt and encrypt, at most 1024; 0 unless set, for the pool that the process shares, with one
 * for each core.
 */
#define MODELSEAL_SET_THREADS 30

/**
 * Number: bytes that a stream of `modelseal_fopen` decrypts at once into a buffer that it keeps, from 64 KiB to 1 GiB; 4 MiB
 * unless set, and never more than its file has. There is no other cache.
 */
#define MODELSEAL_SET_READ_AHEAD 31

/** Text: where an S3-compatible service is, `http(s)://HOST[:PORT]`. */
#define MODELSEAL_SET_S3_ENDPOINT 40

/** Text: the region of `s3://` locations. */
#define MODELSEAL_SET_S3_REGION 41

/** Number: 1 where the bucket is part of the host's name, else 0. */
#define MODELSEAL_SET_S3_VIRTUAL_HOSTED 42

/** Text: a PEM file of authorities that object storage may have, besides those that the system trusts. */
#define MODELSEAL_SET_STORAGE_CA 43

/**
 * Number: bytes that one request of a large read is for at most, from 1 MiB to 1 GiB; 8 MiB unless set.
 */
#define MODELSEAL_SET_PART_LEN 44

/**
 * Number: requests of a large read that are under way at once, from 1 to 1024; 64 unless set. At most this many parts are
 * in memory besides the caller's.
 */
#define MODELSEAL_SET_CONNECTIONS 45

/** Text: the format to seal in, "gocryptfs" unless set, or "sam". */
#define MODELSEAL_SET_FORMAT 60

/** Text: the ID of a package's key and license. A package needs one. */
#define MODELSEAL_SET_KEY_ID 61

/** Text: a JSON file of what a package's license shall be like. */
#define MODELSEAL_SET_LICENSE_CONFIG 62

/** Text: the PEM file with the key that signs a package's license. A package needs one. */
#define MODELSEAL_SET_ISSUER_KEY 63

/** Number: length of a package's chunks, a power of two from 4 KiB to 16 MiB; 64 KiB unless set. */
#define MODELSEAL_SET_CHUNK_LEN 64

/** Number: base-2 logarithm of scrypt's cost, 16 unless set. */
#define MODELSEAL_SET_SCRYPT_LOG_N 65

/**
 * Text: what becomes of symbolic links that lead out of what is sealed: "follow" unless set, "keep" or "refuse".
 */
#define MODELSEAL_SET_SYMLINKS 66

/** Number: 1 to go on with what an interrupted run left in the destination, else 0. */
#define MODELSEAL_SET_RESUME 67

/** Bytes that are a password: what scrypt stretches. */
#define MODELSEAL_PASSWORD 0

/** Bytes that are a binary key: a password as well, or the secret of a FIDO2 token. */
#define MODELSEAL_BINARY_KEY 1

/** 32 bytes that are the master key of a vault. */
#define MODELSEAL_MASTER_KEY 2

/** A regular file. */
#define MODELSEAL_FILE 1

/** A directory. */
#define MODELSEAL_DIR 2

/** A symbolic link. */
#define MODELSEAL_SYMLINK 3

/** Something else: a device, a pipe or a socket. */
#define MODELSEAL_SPECIAL 4

/**
 * Bytes that belong to the library: a secret, or a JSON document. To be freed by `modelseal_buffer_free`, which wipes
 * them.
 */
typedef struct modelseal_buffer modelseal_buffer;

/** What a directory of a model held when it was listed. Any number of threads may use it. */
typedef struct modelseal_entries modelseal_entries;

/**
 * What went wrong: a status, a message, and the messages of what it comes from.
 *
 * Made by a function that fails and whose last argument is not NULL; to be freed by `modelseal_error_free`. The texts
 * are UTF-8, end with a NUL, hold neither secrets nor plaintext, and live as long as the error.
 */
typedef struct modelseal_error modelseal_error;

/**
 * An open file of a sealed model. Any number of threads may read it at once; it lives on when the model is freed.
 */
typedef struct modelseal_file modelseal_file;

/**
 * A key. Any number of models can be opened and sealed with it, from any number of threads; it is wiped when it is freed.
 */
typedef struct modelseal_key modelseal_key;

/**
 * A sealed model, unlocked. Any number of threads may use it. What was opened from it lives on when it is freed.
 */
typedef struct modelseal_model modelseal_model;

/**
 * What a model is opened, sealed and its key fetched with. Where a function takes settings, NULL stands for those that
 * `modelseal_settings_new` makes.
 *
 * Any number of threads may use it, and change it meanwhile. What was opened with it keeps what it was opened with. One
 * attestation serves all keys that are fetched with the same settings, until a setting of the broker changes.
 */
typedef struct modelseal_settings modelseal_settings;

/**
 * The tensors of a sealed model, sorted by name. Any number of threads may use it; it lives on when the model is freed.
 */
typedef struct modelseal_tensors modelseal_tensors;

/**
 * Hears what is logged: `level` is `MODELSEAL_LOG_ERROR` to `MODELSEAL_LOG_TRACE`, and `message` is UTF-8 with a NUL at
 * its end, without secrets, that lives until it returns.
 *
 * Called from any thread, by several at once. It must return normally, and call no function of this library that reads or
 * waits, as the library's threads may wait for it. What it causes to be logged itself is dropped.
 */
typedef void (*modelseal_log)(void *user, int32_t level, const char *message);

/** What is known of something in a model. */
typedef struct modelseal_metadata {
    /** Length of a file's plaintext in bytes; of a link, of its target. */
    uint64_t len;
    /** When it was last changed, in seconds since 1970-01-01 UTC. */
    int64_t modified;
    /** Nanoseconds of that. */
    uint32_t modified_nanoseconds;
    /** Its permissions. */
    uint32_t mode;
    /** `MODELSEAL_FILE`, `MODELSEAL_DIR`, `MODELSEAL_SYMLINK` or `MODELSEAL_SPECIAL`. */
    int32_t kind;
    /** 0. */
    int32_t reserved;
} modelseal_metadata;

/** What is known of a tensor. What it points at lives as long as the tensors that it came from. */
typedef struct modelseal_tensor {
    /** Its name, in UTF-8, without a NUL behind it. */
    const char *name;
    /** Length of the name in bytes. */
    size_t name_len;
    /** What its elements are, such as "BF16": as the safetensors format has it, with a NUL behind it. */
    const char *dtype;
    /** Bits that an element takes. */
    size_t bits;
    /** Its dimensions; of a single number there are none. */
    const size_t *shape;
    /** How many dimensions it has. */
    size_t dimensions;
    /** Its length in bytes. */
    uint64_t len;
    /** Where it begins in its file, in bytes. */
    uint64_t offset;
    /** The path in the model of the file that it is in: any bytes, without a NUL behind them. */
    const char *file;
    /** Length of that path in bytes. */
    size_t file_len;
} modelseal_tensor;

/**
 * Hears how work gets on: `done` of `total` bytes of plaintext, where 0 says that the total is not known (verifying with the
 * key counts as it goes). Returns 0 to go on; anything else calls the work off, which then fails with
 * `MODELSEAL_CANCELLED`.
 *
 * Called from any thread, by one at a time. It must return normally: no `longjmp`, no C++ exception.
 */
typedef int32_t (*modelseal_progress)(void *user, uint64_t done, uint64_t total);

/** What was sealed or verified. */
typedef struct modelseal_summary {
    /** Regular files. */
    uint64_t files;
    /** Directories, without the one where it began. */
    uint64_t dirs;
    /** Symbolic links. */
    uint64_t symlinks;
    /** Plaintext bytes of the files. */
    uint64_t bytes;
    /** Of sealing: files that an earlier run had finished. */
    uint64_t kept;
    /** Of sealing: links out of the directory that were replaced by what they lead to. */
    uint64_t followed;
    /** Of verifying: chunks that are holes. They read as zeros, and nothing shows whether they always did. */
    uint64_t holes;
} modelseal_summary;

/**
 * Hears of something damaged: its path in the model, and what is wrong, which lives until it returns.
 *
 * Called from any thread, by one at a time. It must return normally, and call no function of this library but those of
 * errors.
 */
typedef void (*modelseal_damage)(void *user,
                                 const char *path,
                                 size_t path_len,
                                 const struct modelseal_error *error);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/** The version of the library, such as "0.1.0": text that is always there. */
const char *modelseal_version(void);

/**
 * Checks that the library serves a program that was compiled with the header of version `major.minor.patch`;
 * `modelseal_check` passes the header's own.
 *
 * Returns `MODELSEAL_OK` where the library is of the same major version (before 1.0: also of the same minor version)
 * and not older, else `MODELSEAL_VERSION`.
 *
 * `error` must be NULL or valid for writing.
 */
int32_t modelseal_check_version(uint32_t major,
                                uint32_t minor,
                                uint32_t patch,
                                struct modelseal_error **error);

/**
 * The name of a status, such as "MODELSEAL_NOT_FOUND", as text that is always there; NULL where there is none with
 * this number.
 */
const char *modelseal_status_name(int32_t status);

/**
 * The status of an error.
 *
 * Returns `MODELSEAL_HANDLE` where `error` is none.
 *
 * Anything may be passed: what is no handle is told.
 */
int32_t modelseal_error_status(const struct modelseal_error *error);

/**
 * The message of an error with those of all its causes, in one line; NULL where `error` is none.
 *
 * Anything may be passed: what is no handle is told.
 */
const char *modelseal_error_message(const struct modelseal_error *error);

/**
 * One message of an error: at `depth` 0 its own, behind that those of its causes; NULL where there are no more.
 *
 * Anything may be passed: what is no handle is told.
 */
const char *modelseal_error_cause(const struct modelseal_error *error,
                                  size_t depth);

/**
 * What `errno` was where the system refused something; 0 where that is not what went wrong.
 *
 * Anything may be passed: what is no handle is told.
 */
int32_t modelseal_error_os(const struct modelseal_error *error);

/**
 * Frees an error. NULL is nothing.
 *
 * None of its texts may be read any more.
 */
void modelseal_error_free(struct modelseal_error *error);

/**
 * Where the bytes of a buffer are, and how many. They live as long as the buffer; no NUL is behind them.
 *
 * `data`, `len` and `error` must be valid for writing; `error` may be NULL.
 */
int32_t modelseal_buffer_bytes(const struct modelseal_buffer *buffer,
                               const uint8_t **data,
                               size_t *len,
                               struct modelseal_error **error);

/**
 * Wipes the bytes of a buffer and frees it. NULL is nothing.
 *
 * Its bytes must not be read any more.
 */
void modelseal_buffer_free(struct modelseal_buffer *buffer);

/**
 * Overwrites `len` bytes at `data` with zeros, in a way that no compiler leaves out: for secrets in the caller's own
 * memory. NULL is nothing.
 *
 * `data` must be NULL, or `len` bytes that are valid for writing.
 */
void modelseal_wipe(uint8_t *data,
                    size_t len);

/** How many handles are not freed yet, errors included: for tests that look for leaks. */
size_t modelseal_live_handles(void);

/**
 * Says who hears what is logged, up to `level`; NULL for nobody, as it is at first. When this returns, nobody else is
 * called any more.
 *
 * `MODELSEAL_ARGUMENT` where it is called by a function that hears what is logged, or there is no such level;
 * `MODELSEAL_UNSUPPORTED` where the program is written in Rust and logs elsewhere.
 *
 * `callback` must be as its type says, and may be called with `user` until another takes its place; `error` must be
 * valid for writing, or NULL.
 */
int32_t modelseal_set_log(modelseal_log callback,
                          void *user,
                          int32_t level,
                          struct modelseal_error **error);

/**
 * Makes settings in which nothing is set.
 *
 * `settings` and `error` must be valid for writing; `error` may be NULL.
 */
int32_t modelseal_settings_new(struct modelseal_settings **settings,
                               struct modelseal_error **error);

/**
 * Makes settings as the environment says: from the variables that the command `modelseal` reads, where they are set and
 * not empty.
 *
 * `settings` and `error` must be valid for writing; `error` may be NULL. No other thread may change the environment
 * meanwhile.
 */
int32_t modelseal_settings_from_env(struct modelseal_settings **settings,
                                    struct modelseal_error **error);

/**
 * Frees settings, and wipes what is secret in them. NULL is nothing.
 *
 * Anything may be passed: what is no handle is told.
 */
void modelseal_settings_free(struct modelseal_settings *settings);

/**
 * Sets what takes a text, one of `MODELSEAL_SET_...`, as UTF-8. An empty text unsets it.
 *
 * `MODELSEAL_ARGUMENT` where there is no such setting, it takes a number, or the text is none that it can have.
 *
 * `value` must be `len` bytes, or end with a NUL where `len` is `MODELSEAL_NUL_TERMINATED`; `error` must be valid for
 * writing, or NULL.
 */
int32_t modelseal_settings_set_text(struct modelseal_settings *settings,
                                    int32_t setting,
                                    const char *value,
                                    size_t len,
                                    struct modelseal_error **error);

/**
 * Sets what takes a number, one of `MODELSEAL_SET_...`.
 *
 * `MODELSEAL_ARGUMENT` where there is no such setting, it takes a text, or the number is out of its bounds.
 *
 * `error` must be valid for writing, or NULL.
 */
int32_t modelseal_settings_set_number(struct modelseal_settings *settings,
                                      int32_t setting,
                                      uint64_t value,
                                      struct modelseal_error **error);

/**
 * Fetches the key that a reference leads to: `file:PATH`, `env:NAME`, `cmd:PROGRAM`, `prompt:`,
 * `kbs:///REPOSITORY/TYPE/TAG` or `cdh:///REPOSITORY/TYPE/TAG`, with `hex:`, `base64:` or `masterkey:` in front where
 * needed. `settings`, which may be NULL, say which broker. May take as long as `MODELSEAL_SET_KEY_TIMEOUT` says.
 *
 * `reference` must be `len` bytes, or end with a NUL where `len` is `MODELSEAL_NUL_TERMINATED`; `key` and `error` must be
 * valid for writing; `error` may be NULL. For `env:`, no other thread may change the environment meanwhile.
 */
int32_t modelseal_key_from_reference(const struct modelseal_settings *settings,
                                     const char *reference,
                                     size_t len,
                                     struct modelseal_key **key,
                                     struct modelseal_error **error);

/**
 * Makes a key of `len` bytes, which are copied; `kind` is `MODELSEAL_PASSWORD`, `MODELSEAL_BINARY_KEY` or
 * `MODELSEAL_MASTER_KEY`. The caller's own copy is best overwritten by `modelseal_wipe`.
 *
 * `data` must be `len` bytes; `key` and `error` must be valid for writing; `error` may be NULL.
 */
int32_t modelseal_key_from_bytes(const uint8_t *data,
                                 size_t len,
                                 int32_t kind,
                                 struct modelseal_key **key,
                                 struct modelseal_error **error);

/**
 * Wipes a key and frees it. NULL is nothing.
 *
 * Anything may be passed: what is no handle is told.
 */
void modelseal_key_free(struct modelseal_key *key);

/**
 * Fetches the whole of a resource that a key broker (`kbs:///...`) or the guest's own service (`cdh:///...`) hands out,
 * once it has judged this machine. `settings`, which may be NULL, say which.
 *
 * `reference` must be `len` bytes, or end with a NUL where `len` is `MODELSEAL_NUL_TERMINATED`; `resource` and `error`
 * must be valid for writing; `error` may be NULL.
 */
int32_t modelseal_fetch(const struct modelseal_settings *settings,
                        const char *reference,
                        size_t len,
                        struct modelseal_buffer **resource,
                        struct modelseal_error **error);

/**
 * Unlocks the model at `location`, a directory or a URL, whichever format it has. `settings` may be NULL.
 *
 * `location` must be `location_len` bytes, or end with a NUL where that is `MODELSEAL_NUL_TERMINATED`; `model` and
 * `error` must be valid for writing; `error` may be NULL.
 */
int32_t modelseal_open(const struct modelseal_settings *settings,
                       const char *location,
                       size_t location_len,
                       const struct modelseal_key *key,
                       struct modelseal_model **model,
                       struct modelseal_error **error);

/**
 * Frees a model. NULL is nothing.
 *
 * Anything may be passed: what is no handle is told.
 */
void modelseal_model_free(struct modelseal_model *model);

/**
 * What is known of what lies at `path` in the model, "" being its root. Symbolic links are not followed.
 *
 * `path` must be `path_len` bytes, or end with a NUL where that is `MODELSEAL_NUL_TERMINATED`; `metadata` must be
 * `metadata_len` bytes, which is `sizeof(modelseal_metadata)`; `error` must be valid for writing, or NULL.
 */
int32_t modelseal_stat(const struct modelseal_model *model,
                       const char *path,
                       size_t path_len,
                       struct modelseal_metadata *metadata,
                       size_t metadata_len,
                       struct modelseal_error **error);

/**
 * Where the symbolic link at `path` in the model leads to: any bytes.
 *
 * `path` must be `path_len` bytes, or end with a NUL where that is `MODELSEAL_NUL_TERMINATED`; `target` and `error` must
 * be valid for writing; `error` may be NULL.
 */
int32_t modelseal_read_link(const struct modelseal_model *model,
                            const char *path,
                            size_t path_len,
                            struct modelseal_buffer **target,
                            struct modelseal_error **error);

/**
 * Lists what the directory at `path` in the model holds, "" being its root, sorted by name; where `recursive` is not 0,
 * with all that lies deeper, directories before what they hold.
 *
 * `path` must be `path_len` bytes, or end with a NUL where that is `MODELSEAL_NUL_TERMINATED`; `entries` and `error` must
 * be valid for writing; `error` may be NULL.
 */
int32_t modelseal_list(const struct modelseal_model *model,
                       const char *path,
                       size_t path_len,
                       int32_t recursive,
                       struct modelseal_entries **entries,
                       struct modelseal_error **error);

/**
 * How many entries a listing has; 0 where it is none.
 *
 * Anything may be passed: what is no handle is told.
 */
size_t modelseal_entries_count(const struct modelseal_entries *entries);

/**
 * How many things a listing left out, as they are no part of the model: their names do not decrypt.
 *
 * Anything may be passed: what is no handle is told.
 */
size_t modelseal_entries_strays(const struct modelseal_entries *entries);

/**
 * The path in the model of the entry at `index`: any bytes, with a NUL behind them, that live as long as the listing.
 * NULL where there is no such entry.
 *
 * Anything may be passed: what is no handle is told.
 */
const char *modelseal_entries_path(const struct modelseal_entries *entries,
                                   size_t index);

/**
 * What is known of the entry at `index`.
 *
 * `metadata` must be `metadata_len` bytes, which is `sizeof(modelseal_metadata)`; `error` must be valid for writing, or
 * NULL.
 */
int32_t modelseal_entries_metadata(const struct modelseal_entries *entries,
                                   size_t index,
                                   struct modelseal_metadata *metadata,
                                   size_t metadata_len,
                                   struct modelseal_error **error);

/**
 * Frees a listing. NULL is nothing.
 *
 * None of its paths may be read any more.
 */
void modelseal_entries_free(struct modelseal_entries *entries);

/**
 * Opens the file at `path` in the model. Symbolic links are not followed.
 *
 * `path` must be `path_len` bytes, or end with a NUL where that is `MODELSEAL_NUL_TERMINATED`; `file` and `error` must be
 * valid for writing; `error` may be NULL.
 */
int32_t modelseal_file_open(const struct modelseal_model *model,
                            const char *path,
                            size_t path_len,
                            struct modelseal_file **file,
                            struct modelseal_error **error);

/**
 * Frees a file. NULL is nothing. Streams and descriptors made from it live on.
 *
 * Anything may be passed: what is no handle is told.
 */
void modelseal_file_free(struct modelseal_file *file);

/**
 * Length of a file's plaintext in bytes, as it was when it was opened; 0 where `file` is none.
 *
 * Anything may be passed: what is no handle is told.
 */
uint64_t modelseal_file_len(const struct modelseal_file *file);

/**
 * Fills `data` with the `len` bytes of plaintext from `offset` on, on all cores. Every byte was verified when this
 * returns `MODELSEAL_OK`; after any other status of reading, all of `data` is zero.
 *
 * `MODELSEAL_RANGE` where the file has not as many.
 *
 * `data` must be `len` bytes that nobody else uses until this returns; `error` must be valid for writing, or NULL.
 */
int32_t modelseal_file_read(const struct modelseal_file *file,
                            uint64_t offset,
                            uint8_t *data,
                            size_t len,
                            struct modelseal_error **error);

/**
 * As `modelseal_file_read`, but reads no more than there is, and says in `done` how many bytes that were: 0 at the end.
 *
 * As for `modelseal_file_read`; `done` must be valid for writing.
 */
int32_t modelseal_file_read_some(const struct modelseal_file *file,
                                 uint64_t offset,
                                 uint8_t *data,
                                 size_t len,
                                 size_t *done,
                                 struct modelseal_error **error);

/**
 * Opens a file as a stream of the C library, for reading, at its beginning; to be closed by `fclose`.
 *
 * It can be sought, and decrypts `MODELSEAL_SET_READ_AHEAD` bytes at once, from which the C library copies what is read.
 * `modelseal_file_read` needs no such copy. Where something is damaged, reading fails with `errno` EIO and tells the log what.
 *
 * `stream` and `error` must be valid for writing; `error` may be NULL.
 */
int32_t modelseal_fopen(const struct modelseal_file *file,
                        FILE **stream,
                        struct modelseal_error **error);

/**
 * Decrypts a whole file into memory behind a descriptor, which is the caller's to `close`. Any program that may open
 * `/proc/PID/fd/N` can read and map it; nobody can change it. Every byte was verified when this returns.
 *
 * The descriptor closes on exec. `MODELSEAL_MEMORY` where more memory is needed than there is.
 *
 * `fd` and `error` must be valid for writing; `error` may be NULL.
 */
int32_t modelseal_memfd(const struct modelseal_file *file,
                        int32_t *fd,
                        struct modelseal_error **error);

/**
 * Reads what tensors there are: those of a safetensors file, of the files that an index (`*.index.json`) names, or of a
 * directory, "" being the root of the model.
 *
 * `path` must be `path_len` bytes, or end with a NUL where that is `MODELSEAL_NUL_TERMINATED`; `tensors` and `error` must
 * be valid for writing; `error` may be NULL.
 */
int32_t modelseal_tensors_open(const struct modelseal_model *model,
                               const char *path,
                               size_t path_len,
                               struct modelseal_tensors **tensors,
                               struct modelseal_error **error);

/**
 * Frees tensors. NULL is nothing.
 *
 * None of what a `modelseal_tensor` of them points at may be read any more.
 */
void modelseal_tensors_free(struct modelseal_tensors *tensors);

/**
 * How many tensors there are; 0 where `tensors` are none.
 *
 * Anything may be passed: what is no handle is told.
 */
size_t modelseal_tensors_count(const struct modelseal_tensors *tensors);

/**
 * The index of the tensor of that name. `MODELSEAL_TENSORS` where there is none.
 *
 * `name` must be `name_len` bytes, or end with a NUL where that is `MODELSEAL_NUL_TERMINATED`; `index` and `error` must
 * be valid for writing; `error` may be NULL.
 */
int32_t modelseal_tensors_find(const struct modelseal_tensors *tensors,
                               const char *name,
                               size_t name_len,
                               size_t *index,
                               struct modelseal_error **error);

/**
 * What is known of the tensor at `index`, counted from 0 in the order of the names.
 *
 * `tensor` must be `tensor_len` bytes, which is `sizeof(modelseal_tensor)`; `error` must be valid for writing, or NULL.
 */
int32_t modelseal_tensors_get(const struct modelseal_tensors *tensors,
                              size_t index,
                              struct modelseal_tensor *tensor,
                              size_t tensor_len,
                              struct modelseal_error **error);

/**
 * Fills `data` with the bytes of the tensor at `index`, which are as many as its `len` says. After any status but
 * `MODELSEAL_OK` of reading, all of `data` is zero.
 *
 * `data` must be `len` bytes that nobody else uses until this returns; `error` must be valid for writing, or NULL.
 */
int32_t modelseal_tensors_read(const struct modelseal_tensors *tensors,
                               size_t index,
                               uint8_t *data,
                               size_t len,
                               struct modelseal_error **error);

/**
 * Fills `data` with some rows of the tensor at `index`: slices of its first dimension, from the one at `begin` up to and
 * without the one at `end`. Nothing else is decrypted but what shares a chunk with them. After any status but
 * `MODELSEAL_OK` of reading, all of `data` is zero.
 *
 * `data` must be `len` bytes that nobody else uses until this returns, as many as the rows have; `error` must be valid
 * for writing, or NULL.
 */
int32_t modelseal_tensors_read_rows(const struct modelseal_tensors *tensors,
                                    size_t index,
                                    size_t begin,
                                    size_t end,
                                    uint8_t *data,
                                    size_t len,
                                    struct modelseal_error **error);

/**
 * Seals the directory `source` into `destination`, a directory that is empty or not there yet, or a URL. The settings say
 * in which format; `settings`, `progress` and `summary` may be NULL.
 *
 * The destination counts as a model only when all of it is there. After an interruption `MODELSEAL_SET_RESUME` goes on.
 *
 * `source` and `destination` must be as many bytes as their lengths say, or end with a NUL where that is
 * `MODELSEAL_NUL_TERMINATED`; `progress` must be as its type says; `summary` must be `summary_len` bytes, which is
 * `sizeof(modelseal_summary)`, or NULL with 0; `error` must be valid for writing, or NULL.
 */
int32_t modelseal_seal(const struct modelseal_settings *settings,
                       const char *source,
                       size_t source_len,
                       const char *destination,
                       size_t destination_len,
                       const struct modelseal_key *key,
                       modelseal_progress progress,
                       void *user,
                       struct modelseal_summary *summary,
                       size_t summary_len,
                       struct modelseal_error **error);

/**
 * Verifies the directory at `path` in the model, "" being all of it: reads everything, and goes on where something is
 * damaged. `progress`, `damage` and `summary` may be NULL.
 *
 * `MODELSEAL_DAMAGED` where something is damaged: `damage` was told of all of it, and the error has the first.
 *
 * `path` must be `path_len` bytes, or end with a NUL where that is `MODELSEAL_NUL_TERMINATED`; `progress` and `damage`
 * must be as their types say; `summary` must be `summary_len` bytes, which is `sizeof(modelseal_summary)`, or NULL with
 * 0; `error` must be valid for writing, or NULL.
 */
int32_t modelseal_verify(const struct modelseal_model *model,
                         const char *path,
                         size_t path_len,
                         modelseal_progress progress,
                         modelseal_damage damage,
                         void *user,
                         struct modelseal_summary *summary,
                         size_t summary_len,
                         struct modelseal_error **error);

/**
 * Verifies a package without its key, against its license; or a whole vault against its signed manifest, which
 * `MODELSEAL_SET_MANIFEST` names. Else as `modelseal_verify`.
 *
 * As for `modelseal_verify`, with `location` in place of `path`.
 */
int32_t modelseal_verify_without_key(const struct modelseal_settings *settings,
                                     const char *location,
                                     size_t location_len,
                                     modelseal_progress progress,
                                     modelseal_damage damage,
                                     void *user,
                                     struct modelseal_summary *summary,
                                     size_t summary_len,
                                     struct modelseal_error **error);

/**
 * The licenses at `location`, a package or the file of one, whose signatures are their issuers', as a JSON array of the
 * documents. No key is needed, and nothing is checked but the signatures and that they are for this package: what cannot
 * be used is left out, and the log is told.
 *
 * `location` must be `location_len` bytes, or end with a NUL where that is `MODELSEAL_NUL_TERMINATED`; `json` and `error`
 * must be valid for writing; `error` may be NULL.
 */
int32_t modelseal_licenses(const struct modelseal_settings *settings,
                           const char *location,
                           size_t location_len,
                           struct modelseal_buffer **json,
                           struct modelseal_error **error);

/**
 * Checks the license of the package at `location`, or the one in a file, as it is checked when the package is opened here
 * and now, and hands over its JSON document. No key is needed.
 *
 * As for `modelseal_licenses`.
 */
int32_t modelseal_license_check(const struct modelseal_settings *settings,
                                const char *location,
                                size_t location_len,
                                struct modelseal_buffer **json,
                                struct modelseal_error **error);

/**
 * The JSON document of the license that a model was opened with. `MODELSEAL_FORMAT` where it is a vault, which has none.
 *
 * `json` and `error` must be valid for writing; `error` may be NULL.
 */
int32_t modelseal_model_license(const struct modelseal_model *model,
                                struct modelseal_buffer **json,
                                struct modelseal_error **error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MODELSEAL_H */
