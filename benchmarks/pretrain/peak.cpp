// Measures the peak throughput of the instructions for matmuls: AMX if the CPU and the system allow it, otherwise AVX-512
// bf16. Without bf16 instructions, measures fp32 FMAs of AVX-512 or AVX2.
//
// The program prints one JSON object. `registers` is the throughput in FLOP/s with operands in registers. `l1` is the throughput
// with operands that are loaded from the L1 cache, in blocks of 32 x 32 results (AMX), 8 x 32 results (AVX-512) or 6 x 16 results (AVX2).
//
// Usage: peak THREADS
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <thread>
#include <vector>

#ifdef __AMX_BF16__
#include <sys/syscall.h>
#include <unistd.h>
#endif

constexpr int REPETITIONS = 7;
constexpr double SECONDS = 0.02; // minimum duration of a repetition
constexpr int STEPS = 64;        // number of steps over k in a call; the operands of all steps fit into the L1 cache

alignas(64) static thread_local uint16_t left[16 * 1024], right[16 * 1024];
alignas(64) static thread_local float results[32 * 32];

#ifdef __AMX_BF16__

static bool tiles_allowed() {
    constexpr long request_permission = 0x1023, tile_data = 18;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

static void configure_tiles() {
    alignas(64) uint8_t layout[64] = {0};
    layout[0] = 1;
    for (int tile = 0; tile < 8; tile++) {
        layout[16 + 2 * tile] = 64;
        layout[48 + tile] = 16;
    }
    _tile_loadconfig(layout);
}

// Returns the number of FLOPs. Each tile instruction multiplies 16 x 32 by 32 x 16 values.
static double multiply_tiles(bool load) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, left, 64);
    _tile_loadd(5, left + 512, 64);
    _tile_loadd(6, right, 64);
    _tile_loadd(7, right + 512, 64);
    for (int step = 0; step < STEPS; step++) {
        if (load) {
            int offset = step % 8 * 1024;
            _tile_loadd(4, left + offset, 64);
            _tile_loadd(6, right + offset, 64);
            _tile_loadd(5, left + offset + 512, 64);
            _tile_loadd(7, right + offset + 512, 64);
        }
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, results, 128);
    _tile_stored(1, results + 16, 128);
    _tile_stored(2, results + 512, 128);
    _tile_stored(3, results + 528, 128);
    return 4.0 * STEPS * 2 * 16 * 16 * 32;
}

#endif

// A vector instruction multiplies a broadcast value of the left operand (bf16: two adjacent values) with a vector of the
// right operand, and adds the products to a vector of sums.
#ifdef __AVX512F__
typedef __m512 Sums;
constexpr int ROWS = 8;
static Sums zeros() { return _mm512_setzero_ps(); }
static void store_sums(float *out, Sums sums) { _mm512_storeu_ps(out, sums); }
#else
typedef __m256 Sums;
constexpr int ROWS = 6;
static Sums zeros() { return _mm256_setzero_ps(); }
static void store_sums(float *out, Sums sums) { _mm256_storeu_ps(out, sums); }
#endif
#if defined(__AVX512BF16__)
typedef __m512bh Operand;
constexpr const char *VECTOR_NAME = "AVX-512 bf16";
constexpr int VALUE_BYTES = 2;
static Operand load_vector(const uint16_t *from) { return (__m512bh)_mm512_loadu_si512(from); }
static Operand broadcast(const uint16_t *from) { return (__m512bh)_mm512_set1_epi32(*(const int32_t *)from); }
static Sums multiply_add(Sums sums, Operand a, Operand b) { return _mm512_dpbf16_ps(sums, a, b); }
#elif defined(__AVX512F__)
typedef __m512 Operand;
constexpr const char *VECTOR_NAME = "AVX-512 fp32";
constexpr int VALUE_BYTES = 4;
static Operand load_vector(const uint16_t *from) { return _mm512_loadu_ps((const float *)from); }
static Operand broadcast(const uint16_t *from) { return _mm512_set1_ps(*(const float *)from); }
static Sums multiply_add(Sums sums, Operand a, Operand b) { return _mm512_fmadd_ps(a, b, sums); }
#else
typedef __m256 Operand;
constexpr const char *VECTOR_NAME = "AVX2 fp32";
constexpr int VALUE_BYTES = 4;
static Operand load_vector(const uint16_t *from) { return _mm256_loadu_ps((const float *)from); }
static Operand broadcast(const uint16_t *from) { return _mm256_set1_ps(*(const float *)from); }
static Sums multiply_add(Sums sums, Operand a, Operand b) { return _mm256_fmadd_ps(a, b, sums); }
#endif

// Returns the number of FLOPs.
static double multiply_vectors(bool load) {
    constexpr int COLUMNS = 2, WIDTH = sizeof(Operand) / sizeof(uint16_t);
    Sums sums[ROWS][COLUMNS];
#pragma GCC unroll 8
    for (int row = 0; row < ROWS; row++)
#pragma GCC unroll 2
        for (int column = 0; column < COLUMNS; column++) sums[row][column] = zeros();
    Operand a = load_vector(left), b[COLUMNS] = {load_vector(right), load_vector(right)};
    for (int step = 0; step < STEPS; step++) {
#pragma GCC unroll 2
        for (int column = 0; column < COLUMNS; column++)
            if (load) b[column] = load_vector(right + (step * COLUMNS + column) * WIDTH);
#pragma GCC unroll 8
        for (int row = 0; row < ROWS; row++) {
            if (load) a = broadcast(left + (step * ROWS + row) * 2);
#pragma GCC unroll 2
            for (int column = 0; column < COLUMNS; column++) sums[row][column] = multiply_add(sums[row][column], a, b[column]);
        }
        // Otherwise the compiler may move the instructions of several steps together, which needs too many registers.
        asm volatile("" ::: "memory");
    }
#pragma GCC unroll 8
    for (int row = 0; row < ROWS; row++)
#pragma GCC unroll 2
        for (int column = 0; column < COLUMNS; column++)
            store_sums(results + (row * COLUMNS + column) * 16, sums[row][column]);
    return double(STEPS) * ROWS * COLUMNS * 2 * sizeof(Operand) / VALUE_BYTES;
}

// CPU time instead of wall time, so that other processes do not lower the peak.
static double cpu_seconds() {
    timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

static double rate_of(double (*multiply)(bool), bool load) {
    double flops = 0, seconds = 0, started = cpu_seconds();
    while (seconds < SECONDS) {
        for (int call = 0; call < 256; call++) flops += multiply(load);
        seconds = cpu_seconds() - started;
    }
    return flops / seconds;
}

// Returns the highest sum of the throughputs of all threads in FLOP/s.
static double peak(double (*multiply)(bool), bool load, int threads, void (*prepare)()) {
    double best = 0;
    for (int repetition = 0; repetition < REPETITIONS; repetition++) {
        std::vector<double> rates(threads);
        std::vector<std::thread> workers;
        for (int number = 0; number < threads; number++)
            workers.emplace_back([&, number] {
                std::fill(left, left + 16 * 1024, uint16_t(0x3f80)); // 1.0 in bf16, and about 1 in fp32
                std::fill(right, right + 16 * 1024, uint16_t(0x3f80));
                prepare();
                rates[number] = rate_of(multiply, load);
            });
        for (auto &worker : workers) worker.join();
        double total = 0;
        for (double rate : rates) total += rate;
        best = std::max(best, total);
    }
    return best;
}

int main(int, char **arguments) {
    int threads = std::max(1, atoi(arguments[1]));
    double (*multiply)(bool) = multiply_vectors;
    void (*prepare)() = [] {};
    const char *name = VECTOR_NAME;
#ifdef __AMX_BF16__
    if (tiles_allowed()) multiply = multiply_tiles, prepare = configure_tiles, name = "AMX bf16";
#endif
    double registers = peak(multiply, false, threads, prepare), l1 = peak(multiply, true, threads, prepare);
    printf("{\"instructions\": \"%s\", \"threads\": %d, \"registers\": %.6g, \"l1\": %.6g}\n", name, threads, registers, l1);
}
