/*
 * modelseal for C++17: objects that free themselves, and exceptions. All that it does is in modelseal.h.
 *
 * Objects move and are not copied. Texts are std::string_view; what a view points at lives as long as the object that
 * it came from. A callback may throw: the work is called off, and the exception goes on to the caller.
 */
#ifndef MODELSEAL_HPP
#define MODELSEAL_HPP

#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>
#include <sys/mman.h>
#include <unistd.h>
#include "modelseal.h"

namespace modelseal {

/* What a function failed with. */
class error : public std::runtime_error {
public:
    error(std::int32_t status, int os, const std::string &message)
        : std::runtime_error(message), status_(status), os_(os) {}
    std::int32_t status() const noexcept { return status_; }
    /* What errno was where the system refused something, else 0. */
    int os() const noexcept { return os_; }

private:
    std::int32_t status_;
    int os_;
};

/* Calls a function with its arguments and a place for its error, and throws that. */
template <typename Function, typename... Arguments> void call(Function function, Arguments... arguments) {
    modelseal_error *raw = nullptr;
    const std::int32_t status = function(arguments..., &raw);
    if (status == MODELSEAL_OK) return;
    std::unique_ptr<modelseal_error, decltype(&modelseal_error_free)> found(raw, modelseal_error_free);
    const char *message = modelseal_error_message(raw);
    throw error(status, modelseal_error_os(raw), message == nullptr ? modelseal_status_name(status) : message);
}

/* Throws where the library is not the one that the header is for. */
inline void check() {
    call(modelseal_check_version, std::uint32_t(MODELSEAL_VERSION_MAJOR), std::uint32_t(MODELSEAL_VERSION_MINOR),
         std::uint32_t(MODELSEAL_VERSION_PATCH));
}

/* Owns a handle. */
template <typename T, void (*Free)(T *)> class handle {
public:
    T *get() const noexcept { return owned_.get(); }

protected:
    /* The handle that a function makes: of its result and its error, its last two arguments. */
    template <typename Make> explicit handle(Make make) {
        T *made = nullptr;
        call([&](modelseal_error **error) { return make(&made, error); });
        owned_.reset(made);
    }

private:
    struct deleter {
        void operator()(T *raw) const noexcept { Free(raw); }
    };
    std::unique_ptr<T, deleter> owned_;
};

class settings : public handle<modelseal_settings, modelseal_settings_free> {
public:
    settings() : handle(modelseal_settings_new) {}
    settings &set(std::int32_t setting, std::string_view text) {
        call(modelseal_settings_set_text, get(), setting, text.data(), text.size());
        return *this;
    }
    settings &set(std::int32_t setting, std::uint64_t number) {
        call(modelseal_settings_set_number, get(), setting, number);
        return *this;
    }
};

class key : public handle<modelseal_key, modelseal_key_free> {
public:
    /* The key that a reference such as "file:PATH" leads to. */
    explicit key(std::string_view reference, const settings *with = nullptr)
        : handle([&](modelseal_key **made, modelseal_error **error) {
              return modelseal_key_from_reference(with == nullptr ? nullptr : with->get(), reference.data(),
                                                  reference.size(), made, error);
          }) {}
};

class model : public handle<modelseal_model, modelseal_model_free> {
public:
    model(std::string_view location, const key &with, const settings *how = nullptr)
        : handle([&](modelseal_model **made, modelseal_error **error) {
              return modelseal_open(how == nullptr ? nullptr : how->get(), location.data(), location.size(), with.get(),
                                    made, error);
          }) {}
    /* The paths of all that it holds. */
    std::vector<std::string> paths() const {
        modelseal_entries *raw = nullptr;
        call(modelseal_list, get(), "", std::size_t(0), std::int32_t(1), &raw);
        std::unique_ptr<modelseal_entries, decltype(&modelseal_entries_free)> entries(raw, modelseal_entries_free);
        std::vector<std::string> paths;
        for (std::size_t i = 0; i < modelseal_entries_count(raw); i++) paths.emplace_back(modelseal_entries_path(raw, i));
        return paths;
    }
    /* Reads everything, and throws where something is damaged. `go_on` hears how many bytes of how many are done. */
    void verify(std::function<bool(std::uint64_t, std::uint64_t)> go_on = {}) const {
        std::pair<decltype(go_on), std::exception_ptr> state(std::move(go_on), nullptr);
        const auto heard = [](void *user, std::uint64_t done, std::uint64_t total) -> std::int32_t {
            auto &told = *static_cast<decltype(state) *>(user);
            try {
                return !told.first || told.first(done, total) ? 0 : 1;
            } catch (...) {
                told.second = std::current_exception();
                return 1;
            }
        };
        try {
            call(modelseal_verify, get(), "", std::size_t(0), static_cast<modelseal_progress>(heard), nullptr,
                 static_cast<void *>(&state), nullptr, std::size_t(0));
        } catch (const error &) {
            state.second ? std::rethrow_exception(state.second) : throw;
        }
    }
};

class file : public handle<modelseal_file, modelseal_file_free> {
public:
    file(const model &of, std::string_view path)
        : handle([&](modelseal_file **made, modelseal_error **error) {
              return modelseal_file_open(of.get(), path.data(), path.size(), made, error);
          }) {}
    std::uint64_t size() const noexcept { return modelseal_file_len(get()); }
    void read(std::uint64_t offset, void *data, std::size_t len) const {
        call(modelseal_file_read, get(), offset, static_cast<std::uint8_t *>(data), len);
    }
    /* A stream for reading, which closes itself. */
    std::unique_ptr<std::FILE, int (*)(std::FILE *)> stream() const {
        std::FILE *opened = nullptr;
        call(modelseal_fopen, get(), &opened);
        return {opened, std::fclose};
    }
};

/* The whole of a file, mapped. It is neither copied nor moved. */
class mapping {
public:
    explicit mapping(const file &of) : len_(static_cast<std::size_t>(of.size())) {
        call(modelseal_memfd, of.get(), &fd_);
        data_ = len_ == 0 ? nullptr : mmap(nullptr, len_, PROT_READ, MAP_SHARED, fd_, 0);
        if (data_ == MAP_FAILED) {
            close(fd_);
            throw std::bad_alloc();
        }
    }
    mapping(const mapping &) = delete;
    mapping &operator=(const mapping &) = delete;
    ~mapping() {
        data_ == nullptr ? 0 : munmap(data_, len_);
        fd_ < 0 ? 0 : close(fd_);
    }
    std::string_view bytes() const noexcept { return {static_cast<const char *>(data_), len_}; }
    /* A path under which this process can open it. */
    std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

private:
    int fd_ = -1;
    void *data_ = nullptr;
    std::size_t len_;
};

class tensors : public handle<modelseal_tensors, modelseal_tensors_free> {
public:
    explicit tensors(const model &of, std::string_view path = "")
        : handle([&](modelseal_tensors **made, modelseal_error **error) {
              return modelseal_tensors_open(of.get(), path.data(), path.size(), made, error);
          }) {}
    std::size_t size() const noexcept { return modelseal_tensors_count(get()); }
    modelseal_tensor operator[](std::size_t index) const {
        modelseal_tensor tensor;
        call(modelseal_tensors_get, get(), index, &tensor, sizeof tensor);
        return tensor;
    }
    void read(std::size_t index, void *data, std::size_t len) const {
        call(modelseal_tensors_read, get(), index, static_cast<std::uint8_t *>(data), len);
    }
};

} /* namespace modelseal */

#endif
