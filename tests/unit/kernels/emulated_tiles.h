// The AMX instructions that the kernels use, in C++, to test them on CPUs without AMX. The compiler includes this file
// before each source file. The semantics follow Intel's instruction set reference.
#pragma once
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define __AMX_TILE__ 1
#define __AMX_BF16__ 1
#define __AMX_INT8__ 1
#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#undef _tile_dpbsud
#define _tile_loadconfig emulated_loadconfig
#define _tile_release emulated_release
#define _tile_zero emulated_zero
#define _tile_loadd emulated_loadd
#define _tile_stored emulated_stored
#define _tile_dpbf16ps emulated_dpbf16ps
#define _tile_dpbsud emulated_dpbsud

struct EmulatedTile {
    int rows, bytes;
    uint8_t data[16][64];

    template <typename Value> Value &at(int row, int column) { return ((Value *)data[row])[column]; }
};

inline thread_local EmulatedTile emulated_tiles[8];

inline void emulated_loadconfig(const void *layout) {
    const uint8_t *bytes = (const uint8_t *)layout;
    for (int tile = 0; tile < 8; tile++) {
        memset(&emulated_tiles[tile], 0, sizeof(EmulatedTile));
        memcpy(&emulated_tiles[tile].bytes, bytes + 16 + 2 * tile, 2);
        emulated_tiles[tile].rows = bytes[48 + tile];
    }
}

inline void emulated_release() { memset(emulated_tiles, 0, sizeof emulated_tiles); }

inline void emulated_zero(int tile) { memset(emulated_tiles[tile].data, 0, sizeof emulated_tiles[tile].data); }

inline void emulated_loadd(int tile, const void *from, int64_t stride) {
    EmulatedTile &to = emulated_tiles[tile];
    emulated_zero(tile);
    for (int row = 0; row < to.rows; row++) memcpy(to.data[row], (const char *)from + row * stride, to.bytes);
}

inline void emulated_stored(int tile, void *to, int64_t stride) {
    const EmulatedTile &from = emulated_tiles[tile];
    for (int row = 0; row < from.rows; row++) memcpy((char *)to + row * stride, from.data[row], from.bytes);
}

// Aborts if the tiles do not fit together, as the CPU does.
inline void require_shapes(const EmulatedTile &c, const EmulatedTile &a, const EmulatedTile &b) {
    if (!a.rows || a.bytes / 4 != b.rows || c.rows != a.rows || c.bytes != b.bytes) __builtin_trap();
}

inline float widened(uint16_t value) {
    const uint32_t bits = (uint32_t)value << 16;
    float result;
    memcpy(&result, &bits, 4);
    return result;
}

inline void emulated_dpbf16ps(int to, int left, int right) {
    EmulatedTile &c = emulated_tiles[to], &a = emulated_tiles[left], &b = emulated_tiles[right];
    require_shapes(c, a, b);
    for (int m = 0; m < a.rows; m++)
        for (int n = 0; n < b.bytes / 4; n++) {
            float even = 0, odd = 0;
            for (int k = 0; k < a.bytes / 4; k++) {
                even = __builtin_fmaf(widened(a.at<uint16_t>(m, 2 * k)), widened(b.at<uint16_t>(k, 2 * n)), even);
                odd = __builtin_fmaf(widened(a.at<uint16_t>(m, 2 * k + 1)), widened(b.at<uint16_t>(k, 2 * n + 1)), odd);
            }
            c.at<float>(m, n) += even + odd;
        }
}

// Signed bytes of the left tile times unsigned bytes of the right tile.
inline void emulated_dpbsud(int to, int left, int right) {
    EmulatedTile &c = emulated_tiles[to], &a = emulated_tiles[left], &b = emulated_tiles[right];
    require_shapes(c, a, b);
    for (int m = 0; m < a.rows; m++)
        for (int k = 0; k < a.bytes / 4; k++)
            for (int n = 0; n < b.bytes / 4; n++)
                for (int i = 0; i < 4; i++)
                    c.at<int32_t>(m, n) += (int32_t)a.at<int8_t>(m, 4 * k + i) * b.at<uint8_t>(k, 4 * n + i);
}
