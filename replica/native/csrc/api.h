/* What Python sees of the native module. No preprocessor lines: cffi reads this file as it is.
 *
 * All integers are the machine's own unless a name says be or le. Nothing here keeps a pointer after it returned, except
 * zb_scan_result and zb_udp, which own their memory until the matching _free.
 */

typedef struct { uint32_t record, code; } zb_fault;
typedef struct { uint32_t offset, length, puts, deletes; } zb_run; /* prefix part = payload[offset:offset+length] */

typedef struct {
    uint32_t count;     /* records */
    uint32_t where;     /* octet of a batch fault */
    uint32_t ops_offset; /* ops = payload[ops_offset:ops_offset+count] */
    uint32_t n_faults, n_runs;
    zb_fault *faults;
    zb_run *runs;
} zb_scan_result;

/* 0, or the code of a batch fault (1..), or -1 when memory is out. On 0 the result must be freed. */
int zb_scan(const uint8_t *payload, size_t payload_octets, uint32_t count_max, zb_scan_result *result);
void zb_scan_free(zb_scan_result *result);

/* -1: malformed. r >= 0: a part passes; `out`, as long as the record, holds r octets. -2 - p: all pass, record[p:] is the answer. */
int64_t zb_filter(const uint8_t *record, size_t record_octets, const uint8_t *query, size_t query_octets, int public_only,
                  uint8_t *out);

/* out[i] = 1 where the i-th of these values (u32 count, then that many) is plain, as contract.py says; else 0. */
void zb_plain(uint32_t count, const uint8_t *octets, const uint32_t *lengths, uint8_t *out);

int zb_sha_ni(void);                 /* 1 when the SHA-256 instructions of x86 are in use */
void zb_sha_ni_use(int wanted);      /* tests switch the portable code on */

/* Octets of the blob (22 a changed bucket), or -1 (memory), -2 (an op that is neither put nor delete).
 * octets_change: of keys and values, those that were there before taken away.
 * old_lengths NULL: no record was there before; otherwise 0xFFFFFFFF marks one that was not. */
int64_t zb_delta(uint32_t count, const uint8_t *keys, const uint32_t *key_lengths, const uint8_t *ops, const uint8_t *values,
                 const uint32_t *value_lengths, const uint8_t *olds, const uint32_t *old_lengths, uint8_t *blob,
                 int64_t *count_change, uint8_t *sum_change_le16, int64_t *octets_change);
/* 0, or -1 (blob out of order or of a wrong length), -2 (a count would leave 0..2^64-1); then nothing was changed. */
int zb_apply_delta(uint8_t *sums, const uint8_t *blob, size_t blob_octets);
void zb_fold(const uint8_t *sums, uint32_t groups, uint8_t *out);

typedef struct zb_udp zb_udp;
zb_udp *zb_udp_new(uint32_t batch_max, uint32_t octets_max, uint8_t **arena, uint8_t **addresses, uint32_t **lengths,
                   uint32_t **address_lengths);
void zb_udp_free(zb_udp *udp);
/* Datagrams received (their lengths and addresses are in the arrays; an oversized one has length 0xFFFFFFFF), or -errno; 0 = none. */
int zb_udp_receive(zb_udp *udp, int fd);
/* Datagrams taken from the front: sent, or refused by the kernel for their own fault (counted). -errno only when the socket is bad. */
int zb_udp_send(zb_udp *udp, int fd, uint32_t count, const uint8_t *data, const uint32_t *lengths, const uint8_t *addresses,
                const uint32_t *address_lengths, uint32_t *refused);
