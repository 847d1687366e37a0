/* Hot path: no allocation, no system call. */
#include "dataplane/route/limit_reply.h"

#include <string.h>

#define UNREAD_MAX_BYTES (64u * 1024)

#if HIREDIS_MAJOR >= 1
typedef size_t element_count;
#else
typedef int element_count;
#endif

static struct limit_reply *reply_of(const redisReadTask *task)
{
    return task->privdata;
}

/* A reply that nobody has asked for: hiredis asserts that there is none, unless it is an error,
 * which ends the connection. */
static void *refuse(struct limit_reply *r)
{
    static char why[] = "a reply that was not asked for";
    r->kind = REPLY_ERROR;
    r->shape.type = REDIS_REPLY_ERROR;
    r->shape.str = why;
    r->shape.len = sizeof(why) - 1;
    return r;
}

/* Where the next piece goes; NULL when it has no place. */
static struct reply_part *place(const redisReadTask *task, enum reply_kind kind)
{
    struct limit_reply *r = reply_of(task);
    if (task->parent) {
        if (task->parent->parent || task->idx < 0 || (unsigned)task->idx >= r->count)
            return NULL;
        r->parts[task->idx] = (struct reply_part){.kind = kind};
        return &r->parts[task->idx];
    }
    r->kind = kind;
    r->count = 0;
    r->shape.type = task->type;
    r->parts[0] = (struct reply_part){.kind = kind};
    return &r->parts[0];
}

static void *finish(const redisReadTask *task, struct reply_part *part)
{
    struct limit_reply *r = reply_of(task);
    if (!part)
        return NULL; /* hiredis ends the connection */
    if (!task->parent && r->owed == 0)
        return refuse(r);
    return r;
}

static void *make_text(const redisReadTask *task, char *text, size_t len)
{
    enum reply_kind kind = task->type == REDIS_REPLY_ERROR    ? REPLY_ERROR
                           : task->type == REDIS_REPLY_STATUS ? REPLY_STATUS
                                                              : REPLY_TEXT;
    struct reply_part *part = place(task, kind);
    if (part) {
        part->len = (uint8_t)MIN(len, sizeof(part->text) - 1);
        memcpy(part->text, text, part->len);
        part->text[part->len] = '\0';
        reply_of(task)->shape.str = part->text;
        reply_of(task)->shape.len = part->len;
    }
    return finish(task, part);
}

static void *make_list(const redisReadTask *task, element_count count)
{
    struct limit_reply *r = reply_of(task);
    if (task->parent || task->type != REDIS_REPLY_ARRAY || count < 0 || count > REPLY_PARTS)
        return NULL;
    struct reply_part *part = place(task, REPLY_LIST);
    r->count = (unsigned)count;
    return finish(task, part);
}

static void *make_number(const redisReadTask *task, long long number)
{
    struct reply_part *part = place(task, REPLY_NUMBER);
    if (part)
        part->number = number;
    return finish(task, part);
}

static void *make_nil(const redisReadTask *task)
{
    return finish(task, place(task, REPLY_NIL));
}

static void let_go(void *reply)
{
}

#if HIREDIS_MAJOR >= 1
/* Of a protocol that nothing here asks for. */
static void *make_double(const redisReadTask *task, double number, char *text, size_t len)
{
    return NULL;
}

static void *make_bool(const redisReadTask *task, int value)
{
    return NULL;
}
#endif

static redisReplyObjectFunctions functions = {
    .createString = make_text,
    .createArray = make_list,
    .createInteger = make_number,
    .createNil = make_nil,
    .freeObject = let_go,
#if HIREDIS_MAJOR >= 1
    .createDouble = make_double,
    .createBool = make_bool,
#endif
};

void limit_reply_attach(struct limit_reply *reply, redisAsyncContext *context)
{
    memset(reply, 0, sizeof(*reply));
    context->c.reader->fn = &functions;
    context->c.reader->privdata = reply;
}

bool limit_reply_is_flooded(const redisAsyncContext *context)
{
    const redisReader *r = context->c.reader;
    return r->len - r->pos > UNREAD_MAX_BYTES;
}
