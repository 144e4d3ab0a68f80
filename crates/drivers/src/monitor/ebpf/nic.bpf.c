// SPDX-License-Identifier: Apache-2.0
/*
 * Counts frames at taps and uplink, in both directions, and who sent them to whom.
 *
 *   ingress (what comes in by an interface)          egress (what leaves by it)
 *   links[ifindex].in                                links[ifindex].out
 *   cells[ifindex, 0] if to many                     cells[interface it came in by, ifindex] if to one
 *
 * Frames are counted as they are on the wire, without their checksum: those of a super-packet (GSO, GRO) one by one,
 * each with its headers.
 *
 * A cell of the matrix has two interfaces and no address: the one by which the kernel took the frame in, and the one by
 * which it is about to leave. A frame to one receiver is counted where it leaves, so once; to many, where it comes in.
 *
 * Every path ends in "go on with the next program": this one only looks. Nothing is included, so that a compiler makes
 * the same bytes on every machine. Layouts and numbers are those of linux/bpf.h, linux/pkt_cls.h, linux/if_ether.h and
 * linux/in.h.
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

/* struct __sk_buff, as far as it is used; the kernel knows its fields by their places. */
struct frame {
    u32 len;
    u32 unused_a[8];
    u32 ingress_ifindex; /* by which it came in; 0: made on this host */
    u32 ifindex;
    u32 unused_b[8];
    u32 data, data_end; /* the verifier makes pointers of them */
    u32 unused_c[20];
    u32 gso_segs;
    u64 unused_d;
    u32 gso_size;
};
_Static_assert(__builtin_offsetof(struct frame, ingress_ifindex) == 36, "as in linux/bpf.h");
_Static_assert(__builtin_offsetof(struct frame, data) == 76, "as in linux/bpf.h");
_Static_assert(__builtin_offsetof(struct frame, gso_segs) == 164, "as in linux/bpf.h");
_Static_assert(__builtin_offsetof(struct frame, gso_size) == 176, "as in linux/bpf.h");

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*const load_bytes)(const void *frame, u32 from, void *to, u32 length) = (void *)26;

enum { PERCPU_HASH = 5, NO_PREALLOC = 1, ONLY_IF_NEW = 1, PERCPU_ARRAY = 6, NEXT = -1 };

struct map {
    u32 type, key_size, value_size, max_entries, flags;
};

struct way {
    u64 frames, bytes, sizes[8];
};
struct link {
    struct way in, out;
};
struct cell_key {
    u32 from, to;
};
struct cell {
    u64 frames, bytes;
};

/* Entries are made by the agent alone: what has none is not counted. */
struct map links SECTION("maps") = { PERCPU_HASH, sizeof(u32), sizeof(struct link), 4096, NO_PREALLOC };
struct map cells SECTION("maps") = { PERCPU_HASH, sizeof(struct cell_key), sizeof(struct cell), 16384, NO_PREALLOC };
/* One number: frames that found no room in `cells`. */
struct map lost SECTION("maps") = { PERCPU_ARRAY, sizeof(u32), sizeof(u64), 1, 0 };

/* How the frames of one packet look on the wire: `number` of them, all but the last of `full` bytes. */
struct shape {
    u32 number, full, last;
};

/* Bytes of headers that each frame of a super-packet repeats. */
INLINE u32 headers(const struct frame *frame)
{
    u8 kind[2] = {}, first = 0, over = 0;
    u32 at = 14;

    load_bytes(frame, 12, kind, 2);
    if (kind[0] == 0x81 && kind[1] == 0x00) { /* a tag of a VLAN */
        load_bytes(frame, 16, kind, 2);
        at += 4;
    }
    if (kind[0] == 0x08 && kind[1] == 0x00) { /* IPv4 */
        load_bytes(frame, at, &first, 1);
        load_bytes(frame, at + 9, &over, 1);
        at += (first & 15) * 4;
    } else { /* IPv6 without extensions */
        load_bytes(frame, at + 6, &over, 1);
        at += 40;
    }
    if (over == 17) /* UDP */
        return at + 8;
    first = 0x50; /* TCP */
    load_bytes(frame, at + 12, &first, 1);
    return at + (first >> 4) * 4;
}

INLINE struct shape shape_of(const struct frame *frame)
{
    struct shape one = { 1, 0, frame->len };
    u32 size = frame->gso_size, number = frame->gso_segs, head;

    if (!size)
        return one;
    head = headers(frame);
    if (frame->len <= head)
        return one;
    /* A guest's super-packet says its size and not its number. */
    if (!number)
        number = (frame->len - head + size - 1) / size;
    if ((u64)(number - 1) * size >= frame->len - head)
        return one;
    return (struct shape){ number, head + size, frame->len - (number - 1) * size };
}

/* PACKET_SIZES of the crate `decide`. */
INLINE u32 class_of(u32 bytes)
{
    return bytes <= 64 ? 0 : bytes <= 128 ? 1 : bytes <= 256 ? 2 : bytes <= 512 ? 3 :
           bytes <= 1024 ? 4 : bytes <= 1518 ? 5 : bytes <= 9018 ? 6 : 7;
}

INLINE void count_way(struct way *way, const struct shape *shape)
{
    way->frames += shape->number;
    way->bytes += (u64)(shape->number - 1) * shape->full + shape->last;
    if (shape->number > 1)
        way->sizes[class_of(shape->full) & 7] += shape->number - 1;
    way->sizes[class_of(shape->last) & 7] += 1;
}

INLINE void count_cell(u32 from, u32 to, const struct shape *shape)
{
    struct cell_key key = { from, to };
    struct cell *cell = map_lookup(&cells, &key);
    u32 nought = 0;

    if (!cell) {
        struct cell none = {};
        map_update(&cells, &key, &none, ONLY_IF_NEW);
        cell = map_lookup(&cells, &key);
    }
    if (!cell) {
        u64 *missed = map_lookup(&lost, &nought);
        if (missed)
            *missed += shape->number;
        return;
    }
    cell->frames += shape->number;
    cell->bytes += (u64)(shape->number - 1) * shape->full + shape->last;
}

INLINE int to_many(const struct frame *frame)
{
    const u8 *data = (const u8 *)(unsigned long)frame->data, *end = (const u8 *)(unsigned long)frame->data_end;
    u8 first = 0;

    if (data + 1 <= end)
        return *data & 1;
    load_bytes(frame, 0, &first, 1);
    return first & 1;
}

SECTION("classifier") int evenkeel_in(struct frame *frame)
{
    u32 ifindex = frame->ifindex;
    struct link *link = map_lookup(&links, &ifindex);
    struct shape shape;

    if (!link)
        return NEXT;
    shape = shape_of(frame);
    count_way(&link->in, &shape);
    if (to_many(frame))
        count_cell(ifindex, 0, &shape);
    return NEXT;
}

SECTION("classifier") int evenkeel_out(struct frame *frame)
{
    u32 ifindex = frame->ifindex;
    struct link *link = map_lookup(&links, &ifindex);
    struct shape shape;

    if (!link)
        return NEXT;
    shape = shape_of(frame);
    count_way(&link->out, &shape);
    if (!to_many(frame))
        count_cell(frame->ingress_ifindex, ifindex, &shape);
    return NEXT;
}

char licence[] SECTION("license") = "Apache-2.0";
