/* The memory-bound parts of both architectures for the CPU: what surrounds the convolutions.
 *
 * Activations are float32, channels last: (window, time, channel). Every function works on the windows it is given and
 * writes sums or moments of its own, so that the caller can hand slices of a batch to several threads and put them
 * together.
 * Vectors are GCC/Clang vector types of 16 floats; the compiler maps them to what the processor has.
 */
#include <stdint.h>
#include <string.h>

enum { LANES = 16, TAPS = 7, STEM_CHANNELS = 128 };

typedef float vfloat __attribute__((vector_size(64)));
typedef int32_t vint __attribute__((vector_size(64)));
typedef uint32_t vuint __attribute__((vector_size(64)));
typedef uint8_t vbyte __attribute__((vector_size(16)));
typedef float vfloat_u __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint8_t vbyte_u __attribute__((vector_size(16), aligned(1), may_alias));

static inline vfloat load(const float *p) { return *(const vfloat_u *)p; }
static inline void store(float *p, vfloat v) { *(vfloat_u *)p = v; }
static inline vfloat keep(vfloat v, vint mask) { return (vfloat)((vint)v & mask); }
static inline vfloat choose(vint mask, vfloat a, vfloat b) { return (vfloat)(((vint)a & mask) | ((vint)b & ~mask)); }

static const vuint LANE = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/* 32 random bits for each of 16 consecutive element numbers: a hash of number and 64-bit key, so that the same mask can
 * be drawn again and no state is shared. Multiply-xorshift rounds with the constants of MurmurHash3's
 * finaliser (Appleby) and of lowbias32 (Wellons); two rounds behind the second half of the key, so that neighbouring
 * keys give unrelated masks. */
static inline vuint random_bits(uint32_t first, uint32_t key_low, uint32_t key_high) {
    vuint h = (LANE + first) * 0x9E3779B1u + key_low;
    h ^= h >> 16;
    h *= 0x85EBCA6Bu;
    h ^= h >> 13;
    h += key_high;
    h *= 0xC2B2AE35u;
    h ^= h >> 16;
    h *= 0x7FEB352Du;
    h ^= h >> 15;
    return h;
}

typedef struct {
    uint32_t key_low, key_high; /* of this layer and step */
    uint32_t threshold;         /* drop an element whose random bits lie below: rate * 2^32 */
    float scale;                /* 1 / (1 - rate) */
} Dropout;

/* Keep masks and, from them, which elements of a pooled pair the gradient flows to: bit 0 the first, bit 1 the second. */
static inline vint survives(const Dropout *d, uint32_t element) {
    return (vint)(random_bits(element, d->key_low, d->key_high) >= d->threshold);
}

/* Activation, dropout, and max or mean of two neighbours, and the two bits. As in torch, NaN passes all of them, even
 * where it is dropped (0 * NaN), and the first of two equal values is the largest. */
static inline vfloat pool_pair(vfloat a, vfloat b, vint keep_a, vint keep_b, int use_relu, int mean, vint *flows) {
    const vfloat one = (vfloat){0} + 1.0f;
    vint flows_a = keep_a, flows_b = keep_b;
    if (use_relu) {
        vint passes_a = ~(a <= 0.0f), passes_b = ~(b <= 0.0f);
        a = keep(a, passes_a);
        b = keep(b, passes_b);
        flows_a &= passes_a;
        flows_b &= passes_b;
    }
    a *= keep(one, keep_a);
    b *= keep(one, keep_b);
    if (mean) {
        *flows = (flows_a & 1) | (flows_b & 2);
        return (a + b) * 0.5f;
    }
    vint second = (b > a) | (b != b);
    *flows = (second & flows_b & 2) | (~second & flows_a & 1);
    return choose(second, b, a);
}

/* ---- stem: convolution 1 with folded batch norm, activation, dropout, max pool ---- */

/* Add the mean and the sums of products of deviations of `n` more values to those of `count` (Chan, Golub and LeVeque
 * 1983): never a difference of two large numbers. deviations: (size, size). */
static void merge(double *mean, double *deviations, double count, const double *mean_new, const double *deviations_new,
                  double n, int size) {
    double share = n / (count + n), difference[TAPS];
    for (int k = 0; k < size; k++) difference[k] = mean_new[k] - mean[k];
    for (int k = 0; k < size; k++) {
        mean[k] += difference[k] * share;
        for (int l = 0; l < size; l++)
            deviations[k * size + l] += deviations_new[k * size + l] + difference[k] * difference[l] * count * share;
    }
}

/* Over all positions t, mean (7) of the seven inputs x[2t + k - 3] (zero outside) and sums of the products of their
 * deviations (7, 7): of convolution 1's patches. x: (windows, length). Sums are taken of x less its mean. */
void patch_moments(const float *x, int64_t windows, int64_t length, double *mean, double *deviations, float *scratch) {
    int64_t half = length / 2, whole = half + LANES; /* values behind the end, so that the last vector is a whole one */
    float *part[2] = {scratch + 2, scratch + whole + 6}; /* even and odd samples, two of the padding in front */
    for (int64_t w = 0; w < windows; w++, x += length) {
        vfloat total = {0};
        for (int64_t t = 0; t + LANES <= length; t += LANES) total += load(x + t);
        float shift = 0;
        for (int i = 0; i < LANES; i++) shift += total[i] / (float)length;
        for (int64_t t = -2; t < whole; t++) part[0][t] = part[1][t] = -shift; /* what stays is the padding's zeros */
        for (int64_t t = 0; t < half; t++) {
            part[0][t] = x[2 * t] - shift;
            part[1][t] = x[2 * t + 1] - shift;
        }
        double sums[TAPS], products[TAPS * TAPS];
        for (int k = 0; k < TAPS; k++) {
            vfloat sum = {0}, product[TAPS] = {{0}};
            for (int64_t t = 0; t < half; t += LANES) {
                vint inside = (vint)LANE < (vint){0} + (int32_t)(half - t);
                vfloat tap = keep(load(part[(k + 1) & 1] + t + (k - 3 - ((k + 1) & 1)) / 2), inside);
                sum += tap;
                for (int l = 0; l < TAPS; l++) product[l] += tap * load(part[(l + 1) & 1] + t + (l - 3 - ((l + 1) & 1)) / 2);
            }
            sums[k] = 0;
            for (int i = 0; i < LANES; i++) sums[k] += sum[i];
            for (int l = 0; l < TAPS; l++) {
                products[k * TAPS + l] = 0;
                for (int i = 0; i < LANES; i++) products[k * TAPS + l] += product[l][i];
            }
        }
        double mean_new[TAPS];
        for (int k = 0; k < TAPS; k++) {
            mean_new[k] = shift + sums[k] / (double)half;
            for (int l = 0; l < TAPS; l++) products[k * TAPS + l] -= sums[k] * sums[l] / (double)half;
        }
        merge(mean, deviations, (double)(w * half), mean_new, products, (double)half, TAPS);
    }
}

/* x: (windows, length); weight: (7, 128); bias: (128); y, flows: (windows, length / 4, 128). */
static inline __attribute__((always_inline)) void stem_block(
    const float *x, const float *weight, const float *bias, int64_t pairs, uint32_t element, const Dropout *d,
    int use_relu, int use_dropout, int training, float *y, uint8_t *flows) {
    vfloat w[TAPS], b = load(bias) ;
    for (int k = 0; k < TAPS; k++) w[k] = load(weight + k * STEM_CHANNELS);
    const vint all = (vint){0} - 1;
    for (int64_t t = 0; t < pairs; t++, x += 4, y += STEM_CHANNELS, element += 2 * STEM_CHANNELS) {
        vfloat first = b, second = b;
        for (int k = 0; k < TAPS; k++) {
            first += w[k] * x[k];
            second += w[k] * x[k + 2];
        }
        vint keep_first = all, keep_second = all, bits;
        if (use_dropout) {
            keep_first = survives(d, element);
            keep_second = survives(d, element + STEM_CHANNELS);
        }
        store(y, pool_pair(first, second, keep_first, keep_second, use_relu, 0, &bits));
        if (training) {
            *(vbyte_u *)flows = __builtin_convertvector(bits, vbyte);
            flows += STEM_CHANNELS;
        }
    }
}

enum { TILE = 250 };

void stem_forward(const float *x, int64_t windows, int64_t length, const float *weight, const float *bias,
                  uint32_t element, const Dropout *d, int use_relu, int training, float *y, uint8_t *flows,
                  float *scratch) {
    int64_t pairs = length / 4;
    float *padded = scratch;
    memset(padded, 0, (length + 8) * sizeof(float));
    for (int64_t win = 0; win < windows; win++) {
        memcpy(padded + 3, x + win * length, length * sizeof(float));
        for (int64_t start = 0; start < pairs; start += TILE) {
            int64_t n = pairs - start < TILE ? pairs - start : TILE;
            for (int c = 0; c < STEM_CHANNELS; c += LANES) {
                int64_t at = (win * pairs + start) * STEM_CHANNELS + c;
                uint32_t number = element + (uint32_t)((win * pairs + start) * 2 * STEM_CHANNELS + c);
                const float *in = padded + 4 * start;
                uint8_t *bits = training ? flows + at : 0;
                if (d->threshold && use_relu) stem_block(in, weight + c, bias + c, n, number, d, 1, 1, 1, y + at, bits);
                else if (d->threshold) stem_block(in, weight + c, bias + c, n, number, d, 0, 1, 1, y + at, bits);
                else if (training) stem_block(in, weight + c, bias + c, n, number, d, use_relu, 0, 1, y + at, bits);
                else stem_block(in, weight + c, bias + c, n, number, d, use_relu, 0, 0, y + at, bits);
            }
        }
    }
}

/* Gradients of the folded weight (7, 128) and bias (128), already scaled by dropout: doubles, added to. */
void stem_backward(const float *x, int64_t windows, int64_t length, const float *dy, const uint8_t *flows,
                   double *dweight, double *dbias, float *scratch) {
    int64_t pairs = length / 4;
    float *padded = scratch;
    memset(padded, 0, (length + 8) * sizeof(float));
    for (int64_t win = 0; win < windows; win++) {
        memcpy(padded + 3, x + win * length, length * sizeof(float));
        for (int64_t start = 0; start < pairs; start += TILE) {
            int64_t n = pairs - start < TILE ? pairs - start : TILE;
            for (int c = 0; c < STEM_CHANNELS; c += LANES) {
                vfloat dw[TAPS] = {{0}}, db = {0};
                const float *in = padded + 4 * start, *g = dy + (win * pairs + start) * STEM_CHANNELS + c;
                const uint8_t *f = flows + (win * pairs + start) * STEM_CHANNELS + c;
                for (int64_t t = 0; t < n; t++, in += 4, g += STEM_CHANNELS, f += STEM_CHANNELS) {
                    vint bits = __builtin_convertvector(*(const vbyte_u *)f, vint);
                    vfloat gradient = load(g);
                    vfloat first = keep(gradient, (bits & 1) != 0), second = keep(gradient, (bits & 2) != 0);
                    for (int k = 0; k < TAPS; k++) dw[k] += first * in[k] + second * in[k + 2];
                    db += first + second;
                }
                for (int l = 0; l < LANES; l++) {
                    for (int k = 0; k < TAPS; k++) dweight[k * STEM_CHANNELS + c + l] += dw[k][l];
                    dbias[c + l] += db[l];
                }
            }
        }
    }
}

/* ---- batch norm, activation, dropout and pooling in one pass: (rows, channels) -> (rows / 2, channels) ---- */

/* Mean of every channel and sum of its squared deviations. Each tile of rows is summed less the
 * row in its middle (the first lies next to the padding and is unlike the others). */
void channel_moments(const float *z, int64_t rows, int64_t channels, double *mean, double *deviations) {
    for (int64_t start = 0; start < rows; start += TILE) {
        int64_t n = rows - start < TILE ? rows - start : TILE;
        for (int64_t c = 0; c < channels; c += LANES) {
            vfloat sum = {0}, square = {0};
            const float *p = z + start * channels + c;
            vfloat shift = load(p + n / 2 * channels);
            for (int64_t t = 0; t < n; t++, p += channels) {
                vfloat v = load(p) - shift;
                sum += v;
                square += v * v;
            }
            for (int l = 0; l < LANES; l++) {
                double mean_new = shift[l] + sum[l] / (double)n, deviations_new = square[l] - (double)sum[l] * sum[l] / n;
                merge(mean + c + l, deviations + c + l, (double)start, &mean_new, &deviations_new, (double)n, 1);
            }
        }
    }
}

/* y = pool(dropout(relu(z * scale + shift))). */
void norm_pool_forward(const float *z, int64_t rows, int64_t channels, const float *scale, const float *shift,
                       uint32_t element, const Dropout *d, int use_relu, int mean, float *y, uint8_t *flows) {
    const vint all = (vint){0} - 1;
    for (int64_t pair = 0; pair < rows / 2; pair++) {
        for (int64_t c = 0; c < channels; c += LANES) {
            const float *p = z + 2 * pair * channels + c;
            uint32_t number = element + (uint32_t)(2 * pair * channels + c);
            vfloat first = load(p) * load(scale + c) + load(shift + c);
            vfloat second = load(p + channels) * load(scale + c) + load(shift + c);
            vint keep_first = all, keep_second = all, bits;
            if (d->threshold) {
                keep_first = survives(d, number);
                keep_second = survives(d, number + (uint32_t)channels);
            }
            vfloat pooled = pool_pair(first, second, keep_first, keep_second, use_relu, mean, &bits);
            store(y + pair * channels + c, pooled);
            *(vbyte_u *)(flows + pair * channels + c) = __builtin_convertvector(bits, vbyte);
        }
    }
}

/* Sums over rows of the gradient g behind the batch norm, and of g * z: doubles, added to. */
void norm_pool_gradient_sums(const float *z, int64_t rows, int64_t channels, const float *dy, const uint8_t *flows,
                             double *sums) {
    for (int64_t start = 0; start < rows / 2; start += TILE) {
        int64_t n = rows / 2 - start < TILE ? rows / 2 - start : TILE;
        for (int64_t c = 0; c < channels; c += LANES) {
            vfloat sum = {0}, product = {0};
            for (int64_t t = start; t < start + n; t++) {
                const float *p = z + 2 * t * channels + c;
                vint bits = __builtin_convertvector(*(const vbyte_u *)(flows + t * channels + c), vint);
                vfloat gradient = load(dy + t * channels + c);
                vfloat first = keep(gradient, (bits & 1) != 0), second = keep(gradient, (bits & 2) != 0);
                sum += first + second;
                product += first * load(p) + second * load(p + channels);
            }
            for (int l = 0; l < LANES; l++) {
                sums[c + l] += sum[l];
                sums[channels + c + l] += product[l];
            }
        }
    }
}

/* dz = a * g + b * z + c, per channel: the gradient through batch norm with batch statistics. */
void norm_pool_backward(const float *z, int64_t rows, int64_t channels, const float *dy, const uint8_t *flows,
                        const float *a, const float *b, const float *c, float *dz) {
    for (int64_t pair = 0; pair < rows / 2; pair++) {
        for (int64_t ch = 0; ch < channels; ch += LANES) {
            int64_t at = 2 * pair * channels + ch;
            vint bits = __builtin_convertvector(*(const vbyte_u *)(flows + pair * channels + ch), vint);
            vfloat gradient = load(dy + pair * channels + ch) * load(a + ch);
            vfloat slope = load(b + ch), offset = load(c + ch);
            store(dz + at, keep(gradient, (bits & 1) != 0) + load(z + at) * slope + offset);
            store(dz + at + channels, keep(gradient, (bits & 2) != 0) + load(z + at + channels) * slope + offset);
        }
    }
}

/* ---- plain dropout; n is a multiple of 16 or the rest is done by one padded vector ---- */
void dropout(const float *x, int64_t n, uint32_t element, const Dropout *d, float *y) {
    const vfloat scale = (vfloat){0} + d->scale;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) store(y + i, load(x + i) * keep(scale, survives(d, element + (uint32_t)i)));
    if (i < n) {
        vfloat factor = keep(scale, survives(d, element + (uint32_t)i));
        for (int l = 0; i + l < n; l++) y[i + l] = x[i + l] * factor[l];
    }
}
