#include <criterion/criterion.h>
#include <stdlib.h>

#include "dataplane/route/limit_reply.h"
#include "limits.h"

/* A reader of hiredis as limit_reply.c sets it up, without a connection. */
struct fixture {
    redisAsyncContext context;
    struct limit_reply reply;
};

static void open_fixture(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    f->context.c.reader = redisReaderCreate();
    cr_assert(f->context.c.reader);
    limit_reply_attach(&f->reply, &f->context);
    f->reply.owed = 1;
}

static void close_fixture(struct fixture *f)
{
    redisReaderFree(f->context.c.reader);
}

/* Feeds bytes in pieces of that size. REDIS_OK and a reply, or none yet, or REDIS_ERR. */
static int feed(struct fixture *f, const char *bytes, size_t len, size_t piece, void **reply)
{
    int status = REDIS_OK;
    *reply = NULL;
    for (size_t at = 0; at < len && status == REDIS_OK && !*reply; at += piece) {
        redisReaderFeed(f->context.c.reader, bytes + at, MIN(piece, len - at));
        status = redisReaderGetReply(f->context.c.reader, reply);
    }
    return status;
}

static struct limit_reply read_one(const char *bytes)
{
    struct fixture f;
    void *reply;
    struct limit_reply out = {.kind = REPLY_NIL};
    for (size_t piece = 1; piece <= strlen(bytes); piece++) {
        open_fixture(&f);
        cr_assert_eq(feed(&f, bytes, strlen(bytes), piece, &reply), REDIS_OK, "%s", bytes);
        cr_assert_eq(reply, &f.reply);
        out = f.reply;
        close_fixture(&f);
    }
    return out;
}

Test(limit_reply, what_is_asked_for_is_understood)
{
    struct limit_reply r = read_one("*4\r\n:1\r\n:41\r\n:0\r\n:-7\r\n");
    cr_assert_eq(r.kind, REPLY_LIST);
    cr_assert_eq(r.count, 4);
    int64_t numbers[] = {1, 41, 0, -7};
    for (unsigned i = 0; i < 4; i++) {
        cr_expect_eq(r.parts[i].kind, REPLY_NUMBER);
        cr_expect_eq(r.parts[i].number, numbers[i]);
    }
    r = read_one("*2\r\n:3\r\n$4\r\nabcd\r\n");
    cr_expect_eq(r.parts[1].kind, REPLY_TEXT);
    cr_expect_str_eq(r.parts[1].text, "abcd");
    r = read_one("+OK\r\n");
    cr_expect_eq(r.kind, REPLY_STATUS);
    cr_expect_str_eq(r.parts[0].text, "OK");
    r = read_one("-NOSCRIPT No matching script.\r\n");
    cr_expect_eq(r.kind, REPLY_ERROR);
    cr_expect_eq(r.shape.type, REDIS_REPLY_ERROR);
    cr_expect_eq(strncmp(r.parts[0].text, "NOSCRIPT", 8), 0);
    cr_expect_eq(read_one("$-1\r\n").kind, REPLY_NIL);
    cr_expect_eq(read_one("*0\r\n").count, 0);
    cr_expect_eq(read_one(":12\r\n").parts[0].number, 12);
}

Test(limit_reply, long_texts_keep_their_beginning)
{
    char bytes[1100] = "$1000\r\n";
    size_t len = strlen(bytes);
    memset(bytes + len, 'a', 1000);
    memcpy(bytes + len + 1000, "\r\n", 3);
    struct limit_reply r = read_one(bytes);
    cr_expect_eq(r.parts[0].len, REPLY_TEXT_BYTES - 1);
    cr_expect_eq(strlen(r.parts[0].text), REPLY_TEXT_BYTES - 1);
}

Test(limit_reply, what_cannot_be_an_answer_ends_the_connection)
{
    static const char *const bad[] = {
        "*5\r\n:1\r\n",        "*1000000000\r\n:1\r\n",    "*2\r\n*1\r\n:1\r\n",
        "HTTP/1.1 200 OK\r\n", "*2\r\n:1\r\n*0\r\n:1\r\n", "\r\n\r\n",
        "%1\r\n+a\r\n+b\r\n",
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct fixture f;
        void *reply;
        open_fixture(&f);
        cr_expect_eq(feed(&f, bad[i], strlen(bad[i]), 1000, &reply), REDIS_ERR, "%s", bad[i]);
        close_fixture(&f);
    }
}

/* hiredis would abort on anything but an error. */
Test(limit_reply, unasked_replies_look_like_errors)
{
    static const char *const unasked[] = {"+OK\r\n", ":1\r\n", "$1\r\na\r\n", "*1\r\n:1\r\n",
                                          "*-1\r\n"};
    for (size_t i = 0; i < COUNT_OF(unasked); i++) {
        struct fixture f;
        void *reply;
        open_fixture(&f);
        f.reply.owed = 0;
        int status = feed(&f, unasked[i], strlen(unasked[i]), 1000, &reply);
        cr_expect_eq(status, REDIS_OK);
        cr_assert_not_null(reply);
        cr_expect_eq(((redisReply *)reply)->type, REDIS_REPLY_ERROR, "%s", unasked[i]);
        close_fixture(&f);
    }
}

Test(limit_reply, a_text_that_never_ends_is_noticed)
{
    struct fixture f;
    void *reply;
    static char bytes[100000] = "$2000000000\r\n";
    memset(bytes + strlen(bytes), 'x', sizeof(bytes) - strlen(bytes));
    open_fixture(&f);
    cr_assert_eq(feed(&f, bytes, 1000, 1000, &reply), REDIS_OK);
    cr_expect_not(limit_reply_is_flooded(&f.context));
    cr_assert_eq(feed(&f, bytes, sizeof(bytes), 16384, &reply), REDIS_OK);
    cr_expect(limit_reply_is_flooded(&f.context));
    close_fixture(&f);
}

Test(limit_reply, random_bytes_crash_nothing)
{
    uint64_t random = 11;
    static const char alphabet[] = "*$:+-%_#,(=>\r\n0123456789ab";
    for (unsigned round = 0; round < (SANITIZED ? 5000 : 50000); round++) {
        struct fixture f;
        char bytes[64];
        void *reply = NULL;
        open_fixture(&f);
        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = alphabet[random_below(&random, sizeof(alphabet) - 1)];
        redisReaderFeed(f.context.c.reader, bytes, sizeof(bytes));
        while (redisReaderGetReply(f.context.c.reader, &reply) == REDIS_OK && reply) {
            cr_assert_leq(f.reply.count, REPLY_PARTS);
            f.reply.owed = (uint32_t)random_below(&random, 2);
        }
        close_fixture(&f);
    }
}
