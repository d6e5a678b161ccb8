// SPDX-License-Identifier: Apache-2.0
// judge.cu -- results of a kernel against numbers in double, element by element.
#include <math.h>
#include <string.h>

#include "tests/gpu/check_state.cuh"

// Element i of an array, as double.
struct view {
    const void *values;
    double (*at)(const void *values, size_t i);
};

static double bf16_at(const void *values, size_t i)
{
    return static_cast<double>(bf16_to_float(static_cast<const bf16 *>(values)[i]));
}

static double float_at(const void *values, size_t i)
{
    return static_cast<double>(static_cast<const float *>(values)[i]);
}

static double double_at(const void *values, size_t i)
{
    return static_cast<const double *>(values)[i];
}

// Equal infinities pass; a NaN on either side never does.
static double excess(double got, double want, struct check_bound bound)
{
    if (got == want)
        return 0;
    double allowed = bound.absolute + bound.relative * fabs(want);
    double ratio = fabs(got - want) / fmax(allowed, 1e-300);
    return isnan(ratio) || isinf(want) ? INFINITY : ratio;
}

static void judge(const char *what, struct view got, struct view want, size_t count, size_t columns,
                  struct check_bound bound)
{
    double squares = 0, squares_want = 0;
    size_t wrong = 0, first = 0;
    check_numbers.compared = true;
    for (size_t i = 0; i < count; i++) {
        double a = got.at(got.values, i), b = want.at(want.values, i);
        double ratio = excess(a, b, bound);
        if (ratio > 1 && wrong++ == 0)
            first = i;
        if (isfinite(a) && isfinite(b)) {
            squares += (a - b) * (a - b);
            squares_want += b * b;
            check_numbers.largest = fmax(check_numbers.largest, fabs(a - b));
        }
        check_numbers.of_bound = fmax(check_numbers.of_bound, ratio);
    }
    if (squares > 0)
        check_numbers.relative =
            fmax(check_numbers.relative, sqrt(squares / fmax(squares_want, 1e-300)));
    if (wrong > 0)
        check_fail("%s: %zu of %zu wrong, first [%zu][%zu]: got %.9g want %.9g", what, wrong, count,
                   first / columns, first % columns, got.at(got.values, first),
                   want.at(want.values, first));
}

void check_bf16(const char *what, const bf16 *host, const double *want, size_t count,
                size_t columns, struct check_bound bound)
{
    judge(what, {check_result(host), bf16_at}, {want, double_at}, count, columns, bound);
}

void check_bf16(const char *what, const bf16 *host, const bf16 *want, size_t count, size_t columns,
                struct check_bound bound)
{
    judge(what, {check_result(host), bf16_at}, {want, bf16_at}, count, columns, bound);
}

void check_float(const char *what, const float *host, const double *want, size_t count,
                 size_t columns, struct check_bound bound)
{
    judge(what, {check_result(host), float_at}, {want, double_at}, count, columns, bound);
}

void check_float(const char *what, const float *host, const float *want, size_t count,
                 size_t columns, struct check_bound bound)
{
    judge(what, {check_result(host), float_at}, {want, float_at}, count, columns, bound);
}

void check_equal(const char *what, const void *host, const void *want, size_t count, size_t size)
{
    const uint8_t *got = static_cast<const uint8_t *>(check_result_of(host));
    const uint8_t *right = static_cast<const uint8_t *>(want);
    for (size_t i = 0; i < count; i++) {
        if (memcmp(got + i * size, right + i * size, size) == 0)
            continue;
        int32_t words[2] = {0, 0};
        memcpy(&words[0], got + i * size, size < 4 ? size : 4);
        memcpy(&words[1], right + i * size, size < 4 ? size : 4);
        check_fail("%s: first other element %zu of %zu: got %d.. want %d..", what, i, count,
                   words[0], words[1]);
        return;
    }
}
