/* head: start line and fields of one message, as offsets into the buffer it was received in (which
 * may move). Filled by http1_parse, judged by http1_check, read by whoever decides. Known names
 * carry an id, so that nobody compares strings. */
#pragma once

#include "dataplane/io/buffer.h"
#include "proto/base/str.h"

#define HEAD_MAX_FIELDS 256

/* In head.method: one that llhttp has no number for. It is passed on like any other. */
#define METHOD_EXTENSION 63

enum field_fate { KEEP, HOP, OURS };

enum field_id {
    FIELD_OTHER, /* any name that fields.def does not list */
#define FIELD(ID, name, fate, trails) FIELD_##ID,
#include "dataplane/http/fields.def"
#undef FIELD
    FIELD_LOOKALIKE, /* given by http1_check: see field_find_lookalike(); never passed on */
    FIELD_COUNT
};

/* The id of a name in any case. Pure. */
enum field_id field_find(struct view name);

/* The id of the name once its "_" are read as "-": programs behind CGI-like interfaces cannot tell
 * X_Real_IP from X-Real-IP, so what is a HOP or OURS under the one name must not pass under the
 * other. */
enum field_id field_find_lookalike(struct view name);

extern const uint8_t field_fates[FIELD_COUNT];

static inline enum field_fate field_fate(enum field_id id)
{
    return (enum field_fate)field_fates[id];
}

/* Does it begin with "X-Forwarded-", "_" read as "-"? Of these names too that fields.def does not
 * list (-Port, -Prefix, -User) nobody is believed who is not trusted. */
bool field_claims_forwarding(struct view name);

/* May a field of that name stand in a trailer section? */
bool field_may_trail(enum field_id id);

struct field {
    uint32_t name_at, value_at;
    uint16_t value_len; /* without surrounding white space */
    uint8_t name_len;
    uint8_t id; /* enum field_id */
};

_Static_assert(sizeof(struct field) == 12, "a head's fields fill whole cache lines tightly");

enum framing {
    FRAMING_NONE,       /* no body */
    FRAMING_LENGTH,     /* Content-Length */
    FRAMING_CHUNKED,    /* chunked, and nothing else */
    FRAMING_UNTIL_CLOSE /* a response that ends with its connection */
};

struct head {
    uint8_t method;       /* llhttp's number, or METHOD_EXTENSION; requests */
    uint8_t method_len;   /* the word itself stands before the target: head_method() */
    uint8_t major, minor; /* HTTP version */
    uint8_t framing;      /* enum framing; set by http1_check */
    bool scanned;         /* by http1_scan: the form of every line and name is known to be right */
    uint16_t status;      /* responses */
    uint16_t field_count;
    uint32_t target_at, target_len; /* requests: as received; responses: the reason phrase */
    uint32_t bytes;                 /* the whole head, blank line included */
    uint64_t content_length;        /* with FRAMING_LENGTH */
    uint64_t repeated;              /* bit 1 << id: more than one field has it */
    bool keep_alive;                /* the peer means to keep the connection; set by http1_check */
    uint16_t at[FIELD_COUNT];       /* first field with that id, as index + 1; 0 = none */
    struct field fields[HEAD_MAX_FIELDS];
};

_Static_assert(FIELD_COUNT <= 64, "head.repeated has a bit for each");

/* fields[i] has its id now: the first with it, or one more. */
static inline void head_note(struct head *h, unsigned i)
{
    unsigned id = h->fields[i].id;
    if (h->at[id])
        h->repeated |= (uint64_t)1 << id;
    else
        h->at[id] = (uint16_t)(i + 1);
}

static inline struct view head_view(const struct buffer *b, uint32_t at, uint32_t len)
{
    return (struct view){b->data + at, len};
}

static inline struct view field_name(const struct buffer *b, const struct field *f)
{
    return head_view(b, f->name_at, f->name_len);
}

static inline struct view field_value(const struct buffer *b, const struct field *f)
{
    return head_view(b, f->value_at, f->value_len);
}

/* The method as received, once the head is complete. */
static inline struct view head_method(const struct head *h, const struct buffer *b)
{
    return head_view(b, h->target_at - 1u - h->method_len, h->method_len);
}

/* The first field of that id, NULL if there is none. */
static inline const struct field *head_find(const struct head *h, enum field_id id)
{
    return h->at[id] ? &h->fields[h->at[id] - 1] : NULL;
}

/* Its value, empty if there is none. */
static inline struct view head_value(const struct head *h, const struct buffer *b, enum field_id id)
{
    const struct field *f = head_find(h, id);
    return f ? field_value(b, f) : (struct view){NULL, 0};
}
