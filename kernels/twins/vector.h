// SPDX-License-Identifier: Apache-2.0
// vector.h -- sums in one fixed order, written so that compilers turn them into vector code. Every
// dot product of the twins goes through here: element i of a block belongs to lane i % 8, lanes are
// added in one order, so a result depends on its own numbers alone and not on who is beside it,
// on the instruction set or on the compiler.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/types.h"

// The thread sanitizer makes a call of every access: 15 times the time of this arithmetic, most of
// it for arrays on the stack of the one thread. VECTOR_PURE functions, and those with clones, are
// left alone; what they read and write of memory that others may have they say themselves, whole
// ranges at once, with vector_reads and vector_writes: a race with any byte of them is found as
// before. These are nothing outside that build.
#ifdef DELTAMESH_THREAD_SANITIZER
#define VECTOR_PURE __attribute__((no_sanitize("thread")))
void __tsan_read_range(void *from, unsigned long bytes);
void __tsan_write_range(void *to, unsigned long bytes);
#define vector_reads(from, bytes) __tsan_read_range((void *)(uintptr_t)(from), bytes)
#define vector_writes(to, bytes)  __tsan_write_range(to, bytes)
#else
#define VECTOR_PURE
#define vector_reads(from, bytes) ((void)(from), (void)(bytes))
#define vector_writes(to, bytes)  ((void)(to), (void)(bytes))
#endif

// Builds a function for AVX2 as well and picks at load time. Sanitizers do not like the resolver.
// The clones give the same bits: the order of every sum is written out and nothing is contracted.
// For static functions only: clang 14 gives a clone of an exported one another name.
#if defined(__x86_64__) && defined(__has_attribute) && !defined(DELTAMESH_SANITIZED)
#if __has_attribute(target_clones)
#define VECTOR_CLONES __attribute__((target_clones("arch=x86-64-v3", "default")))
#endif
#endif
#ifndef VECTOR_CLONES
#define VECTOR_CLONES VECTOR_PURE
#endif

// Small pieces have to be inlined into each clone to be built for it.
#define VECTOR_INLINE static inline __attribute__((always_inline))

#define DOUBLE4       double __attribute__((vector_size(32)))
#define FLOAT4        float __attribute__((vector_size(16)))

// Vectors never cross a function's border: their ABI depends on the clone.
#define VECTOR_LOAD(vector, pointer)  memcpy(&(vector), (pointer), sizeof(vector))
#define VECTOR_STORE(pointer, vector) memcpy((pointer), &(vector), sizeof(vector))

enum { VECTOR_LANES = 8 };

#define VECTOR_ROUND_UP(count) (((count) + VECTOR_LANES - 1) / VECTOR_LANES * VECTOR_LANES)

// The one order in which eight lanes become a sum.
#define VECTOR_SUM(low, high, result)                                                              \
    do {                                                                                           \
        DOUBLE4 folded_ = (low) + (high);                                                          \
        *(result) = (folded_[0] + folded_[2]) + (folded_[1] + folded_[3]);                         \
    } while (0)

// to[0 .. count) = from, and zeros up to a multiple of eight.
VECTOR_INLINE void vector_from_bf16(double *restrict to, const bf16 *restrict from, int count)
{
    for (int i = 0; i < count; i++)
        to[i] = (double)bf16_to_float(from[i]);
    for (int i = count; i < VECTOR_ROUND_UP(count); i++)
        to[i] = 0;
}

// The dot product of one pair; count is a multiple of eight.
VECTOR_INLINE double vector_dot(const double *x, const double *w, int count)
{
    DOUBLE4 low = {0}, high = {0};
    for (int i = 0; i < count; i += VECTOR_LANES) {
        DOUBLE4 x_low, x_high, w_low, w_high;
        VECTOR_LOAD(x_low, x + i);
        VECTOR_LOAD(x_high, x + i + 4);
        VECTOR_LOAD(w_low, w + i);
        VECTOR_LOAD(w_high, w + i + 4);
        low += x_low * w_low;
        high += x_high * w_high;
    }
    double sum;
    VECTOR_SUM(low, high, &sum);
    return sum;
}

// sums[a][b] = x[a] . w[b], each exactly as vector_dot gives it.
VECTOR_INLINE void vector_dot_2x2(double sums[2][2], const double *const x[2],
                                  const double *const w[2], int count)
{
    DOUBLE4 low00 = {0}, low01 = {0}, low10 = {0}, low11 = {0};
    DOUBLE4 high00 = {0}, high01 = {0}, high10 = {0}, high11 = {0};
    for (int i = 0; i < count; i += VECTOR_LANES) {
        DOUBLE4 x0, x1, w0, w1;
        VECTOR_LOAD(x0, x[0] + i);
        VECTOR_LOAD(x1, x[1] + i);
        VECTOR_LOAD(w0, w[0] + i);
        VECTOR_LOAD(w1, w[1] + i);
        low00 += x0 * w0;
        low01 += x0 * w1;
        low10 += x1 * w0;
        low11 += x1 * w1;
        VECTOR_LOAD(x0, x[0] + i + 4);
        VECTOR_LOAD(x1, x[1] + i + 4);
        VECTOR_LOAD(w0, w[0] + i + 4);
        VECTOR_LOAD(w1, w[1] + i + 4);
        high00 += x0 * w0;
        high01 += x0 * w1;
        high10 += x1 * w0;
        high11 += x1 * w1;
    }
    VECTOR_SUM(low00, high00, &sums[0][0]);
    VECTOR_SUM(low01, high01, &sums[0][1]);
    VECTOR_SUM(low10, high10, &sums[1][0]);
    VECTOR_SUM(low11, high11, &sums[1][1]);
}

// The sum of squares of bf16 values, any count.
VECTOR_INLINE double vector_sum_squares(const bf16 *x, int count)
{
    enum { BLOCK = 256 };
    double block[BLOCK], sum = 0;
    for (int first = 0; first < count; first += BLOCK) {
        int columns = count - first < BLOCK ? count - first : BLOCK;
        vector_from_bf16(block, x + first, columns);
        sum += vector_dot(block, block, VECTOR_ROUND_UP(columns));
    }
    return sum;
}
