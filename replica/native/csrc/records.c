/* Columns payload and stored records: one walk that validates everything, and the filter that turns a record into an answer. */
#include "native.h"

#include <stdlib.h>

enum { /* batch faults; same order as BATCH_FAULTS in contract.py */
    BATCH_UNKNOWN_FIELD = 1, BATCH_BAD_VARINT, BATCH_TRUNCATED, BATCH_DUPLICATE_OPS, BATCH_COUNTS_DIFFER, BATCH_TOO_MANY_RECORDS,
    BATCH_UNKNOWN_OP, BATCH_TOO_LONG
};
enum { /* record faults; same order as RECORD_FAULTS in contract.py */
    OK = 0, KEY_EMPTY, KEY_TOO_LONG, UNKNOWN_KIND, DELETE_WITH_VALUE, VALUE_TOO_LONG, UNKNOWN_FORMAT, VALUE_TRUNCATED,
    TOO_MANY_VALUES, VALUES_NOT_SORTED, BAD_TTL_TYPE, TRAILING_OCTETS, SPELLING_TOO_LONG
};
enum {
    OP_PUT = 1, OP_DELETE = 2,
    PAYLOAD_OCTETS_MAX = 16 * 1024 * 1024,
    KEY_OCTETS_MAX = 4096, RECORD_OCTETS_MAX = 252 * 1024, VALUES_MAX = 2048, SPELLING_OCTETS_MAX = 2048,
    FORMAT_PLAIN = 0x01, FORMAT_SPELLED = 0x81,
    PLAIN_TYPE_OCTETS_MAX = 255,
    VALUE_OCTETS_MIN = 26, /* index 4, timestamp 4, ttl type 1, ttl 4, permissions 1, three lengths of 4 */
    PUBLIC_READ = 0x02, ADMIN_READ = 0x08
};

typedef struct { const uint8_t *p; uint32_t n; } span;

/* Length in the shortest base-128 form, at most 4 octets (256 MiB). 0: bad or cut off, *code says which. */
static size_t varint(const uint8_t *p, const uint8_t *end, uint32_t *out, int *code) {
    uint32_t x = 0;
    for (size_t i = 0; i < 4; i++) {
        if (p + i >= end) { *code = BATCH_TRUNCATED; return 0; }
        x |= (uint32_t)(p[i] & 0x7F) << (7 * i);
        if (p[i] < 0x80) {
            if (i > 0 && p[i] == 0) break;
            *out = x;
            return i + 1;
        }
    }
    *code = BATCH_BAD_VARINT;
    return 0;
}

/* Octets of the value record at p, or 0 when it does not fit into n octets. */
static size_t value_octets(const uint8_t *p, size_t n) {
    if (n < VALUE_OCTETS_MIN) return 0;
    size_t room = n - VALUE_OCTETS_MIN, type = be32(p + 14);
    if (type > room) return 0;
    room -= type;
    size_t data = be32(p + 18 + type);
    if (data > room) return 0;
    room -= data;
    size_t at = VALUE_OCTETS_MIN + type + data, references = be32(p + at - 4);
    if (references > room / 8) return 0;
    for (; references; references--) {
        if (room < 8) return 0;
        size_t handle = be32(p + at);
        if (handle > room - 8) return 0;
        room -= 8 + handle;
        at += 8 + handle;
    }
    return at;
}

/* Offset of the u32 value count, or 0 with *code set. */
static size_t values_start(const uint8_t *v, size_t n, int *code) {
    size_t at;
    *code = VALUE_TRUNCATED;
    if (n == 0) return 0;
    if (v[0] == FORMAT_PLAIN) {
        at = 1;
    } else if (v[0] == FORMAT_SPELLED) {
        if (n < 3) return 0;
        size_t spelling = (size_t)v[1] << 8 | v[2];
        if (spelling > SPELLING_OCTETS_MAX) { *code = SPELLING_TOO_LONG; return 0; }
        at = 3 + spelling;
    } else {
        *code = UNKNOWN_FORMAT;
        return 0;
    }
    if (n < at + 4) return 0;
    if (be32(v + at) > VALUES_MAX) { *code = TOO_MANY_VALUES; return 0; }
    return at;
}

static int check_values(const uint8_t *v, size_t n) {
    int code;
    size_t at = values_start(v, n, &code);
    if (at == 0) return code;
    uint32_t count = be32(v + at), last = 0;
    at += 4;
    for (uint32_t i = 0; i < count; i++) {
        size_t octets = value_octets(v + at, n - at);
        if (octets == 0) return VALUE_TRUNCATED;
        uint32_t index = be32(v + at);
        if (i > 0 && index <= last) return VALUES_NOT_SORTED;
        if (v[at + 8] > 1) return BAD_TTL_TYPE;
        last = index;
        at += octets;
    }
    return at == n ? OK : TRAILING_OCTETS;
}

static int check_record(span key, uint8_t op, span value) {
    if (key.n == 0) return KEY_EMPTY;
    if (key.n > KEY_OCTETS_MAX) return KEY_TOO_LONG;
    int document = key.p[0] == 'b';
    if (!document && !memchr("hoegdp", key.p[0], 6)) return UNKNOWN_KIND;
    if (op == OP_DELETE) return value.n == 0 ? OK : DELETE_WITH_VALUE;
    if (value.n > RECORD_OCTETS_MAX) return VALUE_TOO_LONG;
    if (!document) return check_values(value.p, value.n);
    return value.n == 0 ? VALUE_TRUNCATED : value.p[0] == FORMAT_PLAIN ? OK : UNKNOWN_FORMAT;
}

/* Finds keys, values and ops; 0 or a batch fault. counts: [0] keys, [1] values, [2] ops. */
static int walk(const uint8_t *payload, size_t n, uint32_t count_max, span *columns[2], uint32_t counts[3], const uint8_t **ops,
                const uint8_t **stopped) {
    const uint8_t *p = payload, *end = payload + n;
    int ops_seen = 0, code = 0;
    while (p < end) {
        *stopped = p;
        uint8_t tag = *p++;
        if (tag != 0x0A && tag != 0x12 && tag != 0x1A) return BATCH_UNKNOWN_FIELD;
        uint32_t length;
        size_t used = varint(p, end, &length, &code);
        if (used == 0) return code;
        p += used;
        if (length > (size_t)(end - p)) return BATCH_TRUNCATED;
        if (tag == 0x1A) {
            if (ops_seen++) return BATCH_DUPLICATE_OPS;
            *ops = p;
            counts[2] = length;
        } else {
            int column = tag == 0x12;
            if (counts[column] == count_max) return BATCH_TOO_MANY_RECORDS;
            columns[column][counts[column]++] = (span){p, length};
        }
        p += length;
    }
    *stopped = p;
    if (counts[0] != counts[1] || counts[0] != counts[2]) return BATCH_COUNTS_DIFFER;
    for (uint32_t i = 0; i < counts[0]; i++)
        if ((*ops)[i] != OP_PUT && (*ops)[i] != OP_DELETE) { *stopped = *ops + i; return BATCH_UNKNOWN_OP; }
    return 0;
}

static void add_to_run(zb_scan_result *r, const uint8_t *payload, span key, uint8_t op) {
    zb_run *run = r->n_runs ? &r->runs[r->n_runs - 1] : NULL;
    /* The usual case, the prefix of the record before, costs one memcmp: a prefix part holds no zero. */
    int same = run && run->length < key.n && key.p[run->length] == 0 && memcmp(key.p, payload + run->offset, run->length) == 0;
    if (!same) {
        const uint8_t *zero = memchr(key.p, 0, key.n);
        uint32_t length = zero ? (uint32_t)(zero - key.p) : key.n;
        same = run && run->length == length && memcmp(key.p, payload + run->offset, length) == 0;
        if (!same) {
            run = &r->runs[r->n_runs++];
            *run = (zb_run){(uint32_t)(key.p - payload), length, 0, 0};
        }
    }
    if (op == OP_PUT) run->puts++;
    else run->deletes++;
}

int zb_scan(const uint8_t *payload, size_t n, uint32_t count_max, zb_scan_result *r) {
    memset(r, 0, sizeof *r);
    if (n > PAYLOAD_OCTETS_MAX) return BATCH_TOO_LONG;
    /* A field takes two octets at least, so memory is bounded by the payload whatever count_max says. */
    uint32_t room = count_max < n / 2 + 1 ? count_max : (uint32_t)(n / 2 + 1);
    span *columns[2] = {malloc(((size_t)room + 1) * sizeof(span)), malloc(((size_t)room + 1) * sizeof(span))};
    uint32_t counts[3] = {0, 0, 0};
    const uint8_t *ops = payload, *stopped = payload;
    int code = columns[0] && columns[1] ? walk(payload, n, room, columns, counts, &ops, &stopped) : -1;
    r->where = (uint32_t)(stopped - payload);
    if (code == 0) {
        r->count = counts[0];
        r->ops_offset = (uint32_t)(ops - payload);
        r->faults = malloc(((size_t)r->count + 1) * sizeof(zb_fault));
        r->runs = malloc(((size_t)r->count + 1) * sizeof(zb_run));
        if (!r->faults || !r->runs) code = -1;
    }
    for (uint32_t i = 0; code == 0 && i < r->count; i++) {
        int fault = check_record(columns[0][i], ops[i], columns[1][i]);
        if (fault) r->faults[r->n_faults++] = (zb_fault){i, (uint32_t)fault};
        add_to_run(r, payload, columns[0][i], ops[i]);
    }
    free(columns[0]);
    free(columns[1]);
    if (code) zb_scan_free(r);
    return code;
}

void zb_scan_free(zb_scan_result *r) {
    free(r->faults);
    free(r->runs);
    r->faults = NULL;
    r->runs = NULL;
}

static inline uint8_t fold(uint8_t c) { return c >= 'a' && c <= 'z' ? c - 32 : c; }

/* A wanted type, given without a final dot, matches itself and its subtypes. */
static int type_matches(const uint8_t *wanted, uint32_t wanted_n, const uint8_t *type, uint32_t n) {
    if (n < wanted_n || (n > wanted_n && type[wanted_n] != '.')) return 0;
    for (uint32_t i = 0; i < wanted_n; i++)
        if (fold(wanted[i]) != fold(type[i])) return 0;
    return 1;
}

/* query: u32 number of indexes, the indexes, then u32 length + octets of each type. Both empty = everything. */
static int asked_for(const uint8_t *query, size_t query_octets, const uint8_t *value) {
    if (query_octets == 0) return 1;
    uint32_t indexes, index = be32(value), x;
    memcpy(&indexes, query, 4);
    const uint8_t *p = query + 4, *end = query + query_octets;
    for (; indexes; indexes--, p += 4) {
        memcpy(&x, p, 4);
        if (x == index) return 1;
    }
    while (p < end) {
        memcpy(&x, p, 4);
        if (type_matches(p + 4, x, value + 18, be32(value + 14))) return 1;
        p += 4 + x;
    }
    return 0;
}

/* Are these the octets that a record of the same values would be written in, with nothing in them that a person would have to judge? */
static int plain(const uint8_t *v, size_t n) {
    if (n < 4 || n > RECORD_OCTETS_MAX - 1) return 0;
    uint32_t count = be32(v), last = 0;
    if (count == 0 || count > VALUES_MAX) return 0;
    size_t at = 4;
    for (uint32_t i = 0; i < count; i++) {
        size_t octets = value_octets(v + at, n - at);
        if (octets == 0) return 0;
        uint32_t index = be32(v + at), type = be32(v + at + 14), data = be32(v + at + 18 + type);
        if ((i > 0 && index <= last) || v[at + 8] > 1 || type == 0 || type > PLAIN_TYPE_OCTETS_MAX) return 0;
        for (uint32_t j = 0; j < type; j++)
            if (v[at + 18 + j] >= 0x80) return 0;
        if (be32(v + at + 22 + type + data) != 0) return 0;
        last = index;
        at += octets;
    }
    return at == n;
}

void zb_plain(uint32_t count, const uint8_t *octets, const uint32_t *lengths, uint8_t *out) {
    for (uint32_t i = 0; i < count; octets += lengths[i++]) out[i] = (uint8_t)plain(octets, lengths[i]);
}

int64_t zb_filter(const uint8_t *record, size_t n, const uint8_t *query, size_t query_octets, int public_only, uint8_t *out) {
    int code;
    size_t start = values_start(record, n, &code);
    if (start == 0) return -1;
    uint8_t needed = public_only ? PUBLIC_READ : PUBLIC_READ | ADMIN_READ;
    uint32_t count = be32(record + start), kept = 0;
    size_t at = start + 4, out_octets = 4;
    for (uint32_t i = 0; i < count; i++) {
        size_t octets = value_octets(record + at, n - at);
        if (octets == 0) return -1;
        if ((record[at + 13] & needed) && asked_for(query, query_octets, record + at)) {
            if (kept < i) memcpy(out + out_octets, record + at, octets);
            out_octets += octets;
            kept++;
        } else if (kept == i) { /* the first one that stays here: what came before it goes out as one piece */
            memcpy(out + 4, record + start + 4, out_octets - 4);
        }
        at += octets;
    }
    if (at != n) return -1;
    if (kept == count) return -2 - (int64_t)start;
    put_be32(out, kept);
    return (int64_t)out_octets;
}
