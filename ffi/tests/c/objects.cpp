// The C++ header: everything frees itself, and everything that fails throws. `objects DIR`
#include "modelseal.hpp"
#include "sample.h"

#include <algorithm>

namespace {

template <typename Work> modelseal::error thrown(Work work) {
    try {
        work();
    } catch (const modelseal::error &error) {
        return error;
    }
    CHECK(!"it throws");
    std::abort();
}

void test(const char *dir) {
    modelseal::check();
    const std::string location = join(dir, "gocryptfs");
    write_file(join(dir, "key"), PASSWORD "\n", sizeof PASSWORD);
    modelseal::settings settings;
    settings.set(MODELSEAL_SET_THREADS, std::uint64_t(2)).set(MODELSEAL_SET_READ_MODE, "copy");
    CHECK(thrown([&] { settings.set(MODELSEAL_SET_READ_MODE, "map"); }).status() == MODELSEAL_ARGUMENT);
    const modelseal::key key(std::string("file:") + join(dir, "key"), &settings);
    const modelseal::model model(location, key, &settings);
    const auto paths = model.paths();
    CHECK(std::find(paths.begin(), paths.end(), "weights.bin") != paths.end());

    modelseal::file file(model, "weights.bin");
    CHECK(file.size() == WEIGHTS_LEN);
    unsigned char *pattern_data = pattern(WEIGHTS_LEN);
    const std::string wanted(reinterpret_cast<const char *>(pattern_data), WEIGHTS_LEN);
    free(pattern_data);
    std::string part(1000, '\0');
    file.read(5000, part.data(), part.size());
    CHECK(part == wanted.substr(5000, 1000));
    CHECK(thrown([&] { file.read(WEIGHTS_LEN, part.data(), 1); }).status() == MODELSEAL_RANGE);
    const modelseal::file moved = std::move(file);
    CHECK(thrown([&] { file.read(0, part.data(), 1); }).status() == MODELSEAL_NULL_POINTER);

    const modelseal::mapping mapping(moved);
    const modelseal::mapping empty(modelseal::file(model, "sub/empty"));
    CHECK(mapping.bytes() == wanted && empty.bytes().empty() && mapping.path().rfind("/proc/self/fd/", 0) == 0);
    const auto stream = moved.stream();
    CHECK(std::fread(part.data(), 1, 1000, stream.get()) == 1000 && part == wanted.substr(0, 1000));

    const modelseal::tensors tensors(model, "tensors");
    CHECK(tensors.size() == 2 && std::string_view(tensors[0].name, tensors[0].name_len) == "a");
    std::vector<signed char> values(tensors[0].len);
    tensors.read(0, values.data(), values.size());
    CHECK(values == std::vector<signed char>({1, 2, 3, 4, 5, 6}));

    std::uint64_t heard = 0;
    model.verify([&](std::uint64_t done, std::uint64_t) {
        heard = done;
        return true;
    });
    CHECK(heard > 0);
    CHECK(thrown([&] { model.verify([](std::uint64_t, std::uint64_t) { return false; }); }).status() ==
          MODELSEAL_CANCELLED);
    try {
        model.verify([](std::uint64_t, std::uint64_t) -> bool { throw std::string("mine"); });
        CHECK(!"it throws");
    } catch (const std::string &mine) {
        CHECK(mine == "mine");
    }
    const auto missing = thrown([&] { modelseal::file(model, "nothing"); });
    CHECK(std::string_view(missing.what()).find("nothing") != std::string_view::npos);
}

} // namespace

int main(int argc, char **argv) {
    CHECK(argc == 2);
    make_model(argv[1]);
    modelseal_model_free(make_sealed(argv[1], "gocryptfs"));
    test(argv[1]);
    CHECK(modelseal_live_handles() == 0);
    std::puts("objects: all holds");
}
