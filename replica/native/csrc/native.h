/* Shared by the C files: types, octet order, the value layout. */
#ifndef ZAIBEI_NATIVE_H
#define ZAIBEI_NATIVE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__ || !defined(__SIZEOF_INT128__)
#error "little-endian machines with 128-bit integers only: elsewhere the Python twin is used"
#endif

#include "api.h"

typedef unsigned __int128 u128;

static inline uint32_t be32(const uint8_t *p) {
    uint32_t x;
    memcpy(&x, p, 4);
    return __builtin_bswap32(x);
}

static inline void put_be32(uint8_t *p, uint32_t x) {
    x = __builtin_bswap32(x);
    memcpy(p, &x, 4);
}

#endif
