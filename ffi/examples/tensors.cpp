// The tensors of a sealed model, in one of its files that is mapped: `tensors MODEL KEY-REFERENCE FILE`
//
// Prints name, type, shape and length of each, and the sum of its bytes as it lies in the mapping.
#include <cstdio>
#include <cstdlib>
#include <numeric>

#include <modelseal.hpp>

namespace {

void show(const modelseal_tensor &tensor, std::string_view bytes) {
    std::printf("%.*s %s [", static_cast<int>(tensor.name_len), tensor.name, tensor.dtype);
    for (std::size_t i = 0; i < tensor.dimensions; i++) {
        std::printf("%s%zu", i == 0 ? "" : ", ", tensor.shape[i]);
    }
    const auto add = [](unsigned long sum, char byte) { return sum + static_cast<unsigned char>(byte); };
    std::printf("] %zu bytes, sum %lu\n", bytes.size(), std::accumulate(bytes.begin(), bytes.end(), 0ul, add));
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 4) {
        std::fprintf(stderr, "usage: %s MODEL KEY-REFERENCE FILE\n", argv[0]);
        return 2;
    }
    try {
        modelseal::check();
        const modelseal::model model(argv[1], modelseal::key(argv[2]));
        const modelseal::mapping mapping(modelseal::file(model, argv[3]));
        const modelseal::tensors tensors(model, argv[3]);
        for (std::size_t i = 0; i < tensors.size(); i++) {
            const modelseal_tensor tensor = tensors[i];
            show(tensor, mapping.bytes().substr(tensor.offset, tensor.len));
        }
    } catch (const modelseal::error &error) {
        std::fprintf(stderr, "%s: %s\n", modelseal_status_name(error.status()), error.what());
        return 1;
    }
}
