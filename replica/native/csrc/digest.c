/* SHA-256 of records, CRC-32 buckets and the additive sums of the digest. */
#include "native.h"

#include <stdlib.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { BUCKETS = 65536, SUM_OCTETS = 24, CHANGE_OCTETS = 22, OP_PUT = 1, OP_DELETE = 2 };
#define NO_OLD 0xFFFFFFFFu

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
static const uint32_t H0[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

static inline uint32_t ror(uint32_t x, int n) { return x >> n | x << (32 - n); }

#define ROUND(a, b, c, d, e, f, g, h, i) \
    do { \
        uint32_t t = h + (ror(e, 6) ^ ror(e, 11) ^ ror(e, 25)) + (g ^ (e & (f ^ g))) + K[i] + w[i]; \
        d += t; \
        h = t + (ror(a, 2) ^ ror(a, 13) ^ ror(a, 22)) + ((a & b) | (c & (a | b))); \
    } while (0)

static void blocks_portable(uint32_t s[8], const uint8_t *p, size_t blocks) {
    for (; blocks; blocks--, p += 64) {
        uint32_t w[64], a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
        for (int i = 0; i < 16; i++) w[i] = be32(p + 4 * i);
        for (int i = 16; i < 64; i++)
            w[i] = w[i - 16] + w[i - 7] + (ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ w[i - 15] >> 3) +
                   (ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ w[i - 2] >> 10);
        for (int i = 0; i < 64; i += 8) {
            ROUND(a, b, c, d, e, f, g, h, i);
            ROUND(h, a, b, c, d, e, f, g, i + 1);
            ROUND(g, h, a, b, c, d, e, f, i + 2);
            ROUND(f, g, h, a, b, c, d, e, i + 3);
            ROUND(e, f, g, h, a, b, c, d, i + 4);
            ROUND(d, e, f, g, h, a, b, c, i + 5);
            ROUND(c, d, e, f, g, h, a, b, i + 6);
            ROUND(b, c, d, e, f, g, h, a, i + 7);
        }
        s[0] += a, s[1] += b, s[2] += c, s[3] += d, s[4] += e, s[5] += f, s[6] += g, s[7] += h;
    }
}

#if defined(__x86_64__)
/* Four rounds a step; the message schedule runs one step ahead (Intel SHA Extensions, white paper of July 2013). */
__attribute__((target("sha,sse4.1,ssse3"))) static void blocks_sha_ni(uint32_t h[8], const uint8_t *p, size_t blocks) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    __m128i t = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)h), 0xB1);
    __m128i efgh = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(h + 4)), 0x1B);
    __m128i abef = _mm_alignr_epi8(t, efgh, 8), cdgh = _mm_blend_epi16(efgh, t, 0xF0);
    for (; blocks; blocks--, p += 64) {
        __m128i abef_before = abef, cdgh_before = cdgh, w[4];
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            if (i < 4) {
                w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(p + 16 * i)), swap);
            } else {
                __m128i x = _mm_sha256msg1_epu32(w[i & 3], w[(i + 1) & 3]);
                x = _mm_add_epi32(x, _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4));
                w[i & 3] = _mm_sha256msg2_epu32(x, w[(i + 3) & 3]);
            }
            __m128i k = _mm_add_epi32(w[i & 3], _mm_loadu_si128((const __m128i *)(K + 4 * i)));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, k);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(k, 0x0E));
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    t = _mm_shuffle_epi32(abef, 0x1B);
    cdgh = _mm_shuffle_epi32(cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)h, _mm_blend_epi16(t, cdgh, 0xF0));
    _mm_storeu_si128((__m128i *)(h + 4), _mm_alignr_epi8(cdgh, t, 8));
}
#endif

static void (*blocks_of)(uint32_t h[8], const uint8_t *p, size_t blocks) = blocks_portable;

void zb_sha_ni_use(int wanted) {
    blocks_of = blocks_portable;
#if defined(__x86_64__)
    uint32_t a = 7, b = 0, c = 0, d = 0; /* leaf 7, EBX bit 29: __builtin_cpu_supports("sha") is unknown to older compilers */
    __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    if (wanted && b >> 29 & 1 && __builtin_cpu_supports("sse4.1")) blocks_of = blocks_sha_ni;
#else
    (void)wanted;
#endif
}

int zb_sha_ni(void) { return blocks_of != blocks_portable; }

static uint32_t crc_table[8][256];

__attribute__((constructor)) static void set_up(void) {
    zb_sha_ni_use(1);
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xEDB88320u ^ c >> 1 : c >> 1;
        crc_table[0][i] = c;
    }
    for (int t = 1; t < 8; t++)
        for (int i = 0; i < 256; i++) crc_table[t][i] = crc_table[0][crc_table[t - 1][i] & 255] ^ crc_table[t - 1][i] >> 8;
}

/* zlib's CRC-32, eight octets a step. */
static uint32_t bucket_of(const uint8_t *p, size_t n) {
    uint32_t c = 0xFFFFFFFFu, a, b;
    for (; n >= 8; n -= 8, p += 8) {
        memcpy(&a, p, 4);
        memcpy(&b, p + 4, 4);
        a ^= c;
        c = crc_table[7][a & 255] ^ crc_table[6][a >> 8 & 255] ^ crc_table[5][a >> 16 & 255] ^ crc_table[4][a >> 24] ^
            crc_table[3][b & 255] ^ crc_table[2][b >> 8 & 255] ^ crc_table[1][b >> 16 & 255] ^ crc_table[0][b >> 24];
    }
    for (; n; n--) c = crc_table[0][(c ^ *p++) & 255] ^ c >> 8;
    return ~c >> 16;
}

typedef struct { uint32_t h[8]; uint8_t rest[64]; size_t rest_n; uint64_t total; } sha;

static void feed(sha *s, const uint8_t *p, size_t n) {
    if (n == 0) return; /* a NULL of no octets must not reach memcpy */
    s->total += n;
    if (s->rest_n) {
        size_t take = 64 - s->rest_n < n ? 64 - s->rest_n : n;
        memcpy(s->rest + s->rest_n, p, take);
        s->rest_n += take;
        p += take;
        n -= take;
        if (s->rest_n < 64) return;
        blocks_of(s->h, s->rest, 1);
        s->rest_n = 0;
    }
    if (n >= 64) blocks_of(s->h, p, n / 64);
    memcpy(s->rest, p + (n & ~(size_t)63), n & 63);
    s->rest_n = n & 63;
}

static u128 record_hash(const uint8_t *key, size_t key_n, const uint8_t *value, size_t value_n) {
    sha s = {.rest_n = 4, .total = 4};
    memcpy(s.h, H0, sizeof H0);
    put_be32(s.rest, (uint32_t)key_n);
    feed(&s, key, key_n);
    feed(&s, value, value_n);
    uint8_t tail[128] = {0};
    size_t tail_n = s.rest_n < 56 ? 64 : 128;
    memcpy(tail, s.rest, s.rest_n);
    tail[s.rest_n] = 0x80;
    put_be32(tail + tail_n - 8, (uint32_t)(s.total >> 29));
    put_be32(tail + tail_n - 4, (uint32_t)(s.total << 3));
    blocks_of(s.h, tail, tail_n / 64);
    for (int i = 0; i < 4; i++) s.h[i] = __builtin_bswap32(s.h[i]);
    u128 out;
    memcpy(&out, s.h, 16);
    return out;
}

typedef struct { u128 sum; int32_t count; uint32_t bucket; } change;

/* Two counting passes of eight bits; the result is in `a` again. */
static void sort_changes(change *a, change *b, uint32_t n) {
    for (int shift = 0; shift < 16; shift += 8) {
        uint32_t at[256] = {0}, sum = 0;
        for (uint32_t i = 0; i < n; i++) at[a[i].bucket >> shift & 255]++;
        for (int i = 0; i < 256; i++) { uint32_t c = at[i]; at[i] = sum; sum += c; }
        for (uint32_t i = 0; i < n; i++) b[at[a[i].bucket >> shift & 255]++] = a[i];
        change *t = a; a = b; b = t;
    }
}

static uint8_t *put_change(uint8_t *out, const change *c) {
    if (c->count == 0 && c->sum == 0) return out;
    uint16_t bucket = (uint16_t)c->bucket;
    memcpy(out, &bucket, 2);
    memcpy(out + 2, &c->count, 4);
    memcpy(out + 6, &c->sum, 16);
    return out + CHANGE_OCTETS;
}

int64_t zb_delta(uint32_t count, const uint8_t *keys, const uint32_t *key_lengths, const uint8_t *ops, const uint8_t *values,
                 const uint32_t *value_lengths, const uint8_t *olds, const uint32_t *old_lengths, uint8_t *blob,
                 int64_t *count_change, uint8_t *sum_change_le16, int64_t *octets_change) {
    change *a = malloc(((size_t)count + 1) * sizeof *a), *b = malloc(((size_t)count + 1) * sizeof *b);
    int64_t status = a && b ? 0 : -1, total_count = 0, total_octets = 0;
    u128 total_sum = 0;
    for (uint32_t i = 0; status == 0 && i < count; i++) {
        change c = {0, 0, bucket_of(keys, key_lengths[i])};
        if (ops[i] == OP_PUT) {
            c.sum = record_hash(keys, key_lengths[i], values, value_lengths[i]);
            c.count = 1;
            total_octets += (int64_t)key_lengths[i] + value_lengths[i];
        } else if (ops[i] != OP_DELETE) {
            status = -2;
        }
        if (old_lengths && old_lengths[i] != NO_OLD) {
            c.sum -= record_hash(keys, key_lengths[i], olds, old_lengths[i]);
            c.count -= 1;
            total_octets -= (int64_t)key_lengths[i] + old_lengths[i];
            olds += old_lengths[i];
        }
        keys += key_lengths[i];
        values += value_lengths[i];
        total_count += c.count;
        total_sum += c.sum;
        a[i] = c;
    }
    if (status == 0 && count) {
        sort_changes(a, b, count);
        uint8_t *out = blob;
        change merged = a[0];
        for (uint32_t i = 1; i < count; i++) {
            if (a[i].bucket != merged.bucket) {
                out = put_change(out, &merged);
                merged = a[i];
            } else {
                merged.sum += a[i].sum;
                merged.count += a[i].count;
            }
        }
        status = put_change(out, &merged) - blob;
    }
    free(a);
    free(b);
    *count_change = total_count;
    *octets_change = total_octets;
    memcpy(sum_change_le16, &total_sum, 16);
    return status;
}

int zb_apply_delta(uint8_t *sums, const uint8_t *blob, size_t n) {
    if (n % CHANGE_OCTETS) return -1;
    int32_t last = -1, count;
    uint16_t bucket;
    uint64_t held;
    u128 sum, held_sum;
    for (size_t at = 0; at < n; at += CHANGE_OCTETS) { /* look first, so that a bad blob changes nothing */
        memcpy(&bucket, blob + at, 2);
        memcpy(&count, blob + at + 2, 4);
        memcpy(&held, sums + (size_t)bucket * SUM_OCTETS, 8);
        if (bucket <= last) return -1;
        uint64_t after = held + (uint64_t)(int64_t)count;
        if (count < 0 ? after > held : after < held) return -2;
        last = bucket;
    }
    for (size_t at = 0; at < n; at += CHANGE_OCTETS) {
        memcpy(&bucket, blob + at, 2);
        memcpy(&count, blob + at + 2, 4);
        memcpy(&sum, blob + at + 6, 16);
        uint8_t *p = sums + (size_t)bucket * SUM_OCTETS;
        memcpy(&held, p, 8);
        memcpy(&held_sum, p + 8, 16);
        held += (uint64_t)(int64_t)count;
        held_sum += sum;
        memcpy(p, &held, 8);
        memcpy(p + 8, &held_sum, 16);
    }
    return 0;
}

/* Adds neighbouring buckets together: `groups` sums come out. */
void zb_fold(const uint8_t *sums, uint32_t groups, uint8_t *out) {
    for (uint32_t g = 0; g < groups; g++) {
        uint64_t count = 0, c;
        u128 sum = 0, s;
        for (uint32_t i = 0; i < BUCKETS / groups; i++, sums += SUM_OCTETS) {
            memcpy(&c, sums, 8);
            memcpy(&s, sums + 8, 16);
            count += c;
            sum += s;
        }
        memcpy(out + (size_t)g * SUM_OCTETS, &count, 8);
        memcpy(out + (size_t)g * SUM_OCTETS + 8, &sum, 16);
    }
}
