#include <criterion/criterion.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/channel.h"

/* tests/golden/frames holds one frame of each type as it went over the wire when its fields came
 * into being. Every field in it has a value that follows from its number and name (see value_of_*),
 * so that a field which changes its number, type or meaning is found. A field that is added later
 * is not in the file, and need not be: that older frames are still understood is what is tested. */

static const struct golden {
    const char *word;
    uint16_t type;
    const ProtobufCMessageDescriptor *descriptor;
} goldens[] = {
#define MESSAGE(NAME, number, lower, Type, sender, phase, max)                                     \
    {#lower, (number), &gwp__##lower##__descriptor},
#include "proto/messages.def"
#undef MESSAGE
};

#define ELEMENTS 2 /* of a repeated field */
#define MAX_BYTES 65536

/* ---- the value of each field ---- */

static size_t size_of(const ProtobufCFieldDescriptor *f)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    default:
        return 4;
    }
}

static int enum_value_of(const ProtobufCFieldDescriptor *f)
{
    const ProtobufCEnumDescriptor *e = f->descriptor;
    return e->values[e->n_values - 1].value;
}

static ProtobufCMessage *filled(const ProtobufCMessageDescriptor *d);

static void put(const ProtobufCFieldDescriptor *f, void *at)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_UINT32:
        *(uint32_t *)at = f->id + 100;
        break;
    case PROTOBUF_C_TYPE_UINT64:
        *(uint64_t *)at = f->id + 10000000000;
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        *(double *)at = f->id + 0.5;
        break;
    case PROTOBUF_C_TYPE_BOOL:
        *(protobuf_c_boolean *)at = 1;
        break;
    case PROTOBUF_C_TYPE_ENUM:
        *(int *)at = enum_value_of(f);
        break;
    case PROTOBUF_C_TYPE_STRING:
        *(const char **)at = f->name;
        break;
    case PROTOBUF_C_TYPE_BYTES:
        *(ProtobufCBinaryData *)at = (ProtobufCBinaryData){strlen(f->name), (uint8_t *)f->name};
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        *(ProtobufCMessage **)at = filled(f->descriptor);
        break;
    default:
        cr_assert_fail("field %s has a type that this test does not know", f->name);
    }
}

/* Leaks: a test's process is short. */
static ProtobufCMessage *filled(const ProtobufCMessageDescriptor *d)
{
    char *m = calloc(1, d->sizeof_message);
    protobuf_c_message_init(d, m);
    for (unsigned i = 0; i < d->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &d->fields[i];
        if (f->label != PROTOBUF_C_LABEL_REPEATED) {
            put(f, m + f->offset);
            continue;
        }
        char *list = calloc(ELEMENTS, size_of(f));
        for (size_t k = 0; k < ELEMENTS; k++)
            put(f, list + k * size_of(f));
        *(size_t *)(void *)(m + f->quantifier_offset) = ELEMENTS;
        *(void **)(void *)(m + f->offset) = list;
    }
    return (ProtobufCMessage *)(void *)m;
}

static void expect_filled(const ProtobufCMessage *m);

static void expect_value(const ProtobufCFieldDescriptor *f, const void *at)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_UINT32:
        cr_expect_eq(*(const uint32_t *)at, f->id + 100, "%s", f->name);
        break;
    case PROTOBUF_C_TYPE_UINT64:
        cr_expect_eq(*(const uint64_t *)at, (uint64_t)f->id + 10000000000, "%s", f->name);
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        cr_expect_eq(*(const double *)at, f->id + 0.5, "%s", f->name);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        cr_expect(*(const protobuf_c_boolean *)at, "%s", f->name);
        break;
    case PROTOBUF_C_TYPE_ENUM:
        cr_expect_neq(*(const int *)at, 0, "%s", f->name);
        break;
    case PROTOBUF_C_TYPE_STRING:
        cr_expect_str_eq(*(char *const *)at, f->name);
        break;
    case PROTOBUF_C_TYPE_BYTES:
        cr_expect_eq(((const ProtobufCBinaryData *)at)->len, strlen(f->name), "%s", f->name);
        break;
    default:
        expect_filled(*(ProtobufCMessage *const *)at);
    }
}

static bool is_set(const ProtobufCFieldDescriptor *f, const char *m)
{
    static const char nothing[sizeof(ProtobufCBinaryData)];
    if (f->label == PROTOBUF_C_LABEL_REPEATED)
        return *(const size_t *)(const void *)(m + f->quantifier_offset) > 0;
    if (f->type == PROTOBUF_C_TYPE_STRING)
        return **(char *const *)(const void *)(m + f->offset) != '\0';
    return memcmp(m + f->offset, nothing, size_of(f)) != 0;
}

static void expect_filled(const ProtobufCMessage *message)
{
    const char *m = (const char *)message;
    cr_expect_eq(message->n_unknown_fields, 0, "%s no longer has a field that it had",
                 message->descriptor->name);
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &message->descriptor->fields[i];
        if (!is_set(f, m))
            continue;
        if (f->label != PROTOBUF_C_LABEL_REPEATED) {
            expect_value(f, m + f->offset);
            continue;
        }
        const char *list = *(char *const *)(const void *)(m + f->offset);
        for (size_t k = 0; k < ELEMENTS; k++)
            expect_value(f, list + k * size_of(f));
    }
}

/* ---- files ---- */

static size_t read_hex(const char *word, uint8_t *out)
{
    char path[128];
    size_t len = 0;
    unsigned byte;
    snprintf(path, sizeof(path), "tests/golden/frames/%s.hex", word);
    FILE *in = fopen(path, "r");
    if (!in)
        return 0;
    while (len < MAX_BYTES && fscanf(in, "%2x", &byte) == 1)
        out[len++] = (uint8_t)byte;
    fclose(in);
    return len;
}

/* For a message that has no file yet: what belongs into it. */
static void fail_with_hex(const struct golden *g)
{
    static uint8_t payload[MAX_BYTES];
    size_t len = protobuf_c_message_pack(filled(g->descriptor), payload);
    printf("tests/golden/frames/%s.hex:\n%08zx%04x0000", g->word, len, g->type);
    for (size_t i = 0; i < len; i++)
        printf("%s%02x", (i + 8) % 32 == 0 ? "\n" : "", payload[i]);
    printf("\n\n");
    cr_expect_fail("tests/golden/frames/%s.hex is missing; above is what belongs into it", g->word);
}

static uint32_t any_bound(uint16_t type)
{
    return MAX_BYTES;
}

static void check(const struct golden *g, const uint8_t *bytes, size_t len)
{
    static uint8_t again[MAX_BYTES];
    struct frame_reader reader;
    struct frame f;
    struct err err;
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    cr_assert_eq(write(ends[0], bytes, len), (ssize_t)len);
    frame_reader_init(&reader, any_bound);
    enum frame_status status;
    while ((status = frame_read(&reader, ends[1], &f, &err)) == FRAME_AGAIN)
        ;
    cr_assert_eq(status, FRAME_READY, "%s: %s", g->word, err.text);
    cr_expect_eq(f.type, g->type);
    ProtobufCMessage *m = protobuf_c_message_unpack(g->descriptor, NULL, f.len, f.payload);
    cr_assert(m, "%s cannot be unpacked", g->word);
    expect_filled(m);
    cr_assert_eq(protobuf_c_message_get_packed_size(m), f.len, "%s", g->word);
    protobuf_c_message_pack(m, again);
    cr_expect_arr_eq(again, f.payload, f.len, "%s is packed in another way than before", g->word);
    protobuf_c_message_free_unpacked(m, NULL);
    frame_reader_fini(&reader);
    close(ends[0]);
    close(ends[1]);
}

Test(golden, every_frame_is_read_and_written_as_ever)
{
    static uint8_t bytes[MAX_BYTES];
    for (size_t i = 0; i < COUNT_OF(goldens); i++) {
        size_t len = read_hex(goldens[i].word, bytes);
        if (len == 0)
            fail_with_hex(&goldens[i]);
        else
            check(&goldens[i], bytes, len);
    }
}
