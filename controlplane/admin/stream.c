#include "controlplane/admin/stream.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "controlplane/admin/documents.h"

#define BLOCK_BYTES 4096
#define SILENCE_SECONDS 15.

struct stream {
    struct list link; /* of admin.streams */
    struct admin *admin;
    const struct front *front;
    struct MHD_Connection *connection;
    int fd;        /* libmicrohttpd's */
    uint64_t told; /* id of the last event that was written */
    char kind[16]; /* "" = every one */
    char *text;    /* owned: what is being written; NULL = nothing */
    size_t at, len;
    double spoke_at; /* loop time */
    bool is_asleep, is_over;
};

json_t *stream_event(const struct event *e)
{
    return json_pack("{s:I, s:o, s:s, s:s, s:o}", "id", (json_int_t)e->id, "at",
                     document_time(e->at), "level", log_level_word(e->level), "kind", e->kind,
                     "message", document_text(e->message));
}

/* The next text to be written; false when there is none for now. */
static bool fill(struct stream *s)
{
    const struct event *e;
    double now = ev_now(s->admin->loop);
    while ((e = events_after(s->admin->context.events, s->told)) && s->kind[0] &&
           strcmp(e->kind, s->kind) != 0)
        s->told = e->id;
    if (!e && now - s->spoke_at < SILENCE_SECONDS)
        return false;
    s->spoke_at = now;
    free(s->text);
    s->at = 0;
    if (!e) {
        s->text = strdup(": still here\n\n");
    } else {
        json_t *document = stream_event(e);
        char *data = json_dumps(document, JSON_COMPACT);
        if (!data || asprintf(&s->text, "id: %llu\nevent: %s\ndata: %s\n\n",
                              (unsigned long long)e->id, e->kind, data) < 0)
            s->text = NULL;
        free(data);
        json_decref(document);
        s->told = e->id;
    }
    if (!s->text)
        log_fatal("stream", "out of memory");
    s->len = strlen(s->text);
    return true;
}

static ssize_t on_read(void *owner, uint64_t position, char *out, size_t room)
{
    struct stream *s = owner;
    if (s->is_over)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (s->at == s->len && !fill(s)) {
        s->is_asleep = true;
        MHD_suspend_connection(s->connection);
        return 0;
    }
    size_t n = MIN(room, s->len - s->at);
    memcpy(out, s->text + s->at, n);
    s->at += n;
    return (ssize_t)n;
}

static void on_free(void *owner)
{
    struct stream *s = owner;
    list_remove(&s->link);
    s->admin->stream_count--;
    free(s->text);
    free(s);
}

void stream_reply(struct request *rq, uint64_t since, const char *kind)
{
    struct admin *a = rq->admin;
    if (a->stream_count >= STREAMS_MAX) {
        request_fail(rq, MHD_HTTP_SERVICE_UNAVAILABLE, "busy",
                     "%d streams are open already; ask without stream=1", STREAMS_MAX);
        return;
    }
    struct stream *s = calloc(1, sizeof(*s));
    struct MHD_Response *response =
        s ? MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK_BYTES, on_read, s, on_free)
          : NULL;
    if (!response)
        log_fatal("stream", "out of memory");
    s->admin = a;
    s->front = rq->front;
    s->connection = rq->connection;
    s->fd = rq->visit ? rq->visit->fd : -1;
    s->told = since;
    s->spoke_at = ev_now(a->loop);
    snprintf(s->kind, sizeof(s->kind), "%s", kind ? kind : "");
    list_push_back(&a->streams, &s->link);
    a->stream_count++;
    if (!ev_is_active(&a->speak))
        ev_timer_again(a->loop, &a->speak);
    request_reply_stream(rq, MHD_HTTP_OK, "text/event-stream", response);
}

static void wake(struct stream *s)
{
    if (!s->is_asleep)
        return;
    s->is_asleep = false;
    MHD_resume_connection(s->connection);
}

/* libmicrohttpd does not look at a connection that sleeps. */
static bool is_gone(const struct stream *s)
{
    char byte;
    ssize_t n = s->is_asleep ? recv(s->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) : 1;
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

void streams_wake(struct admin *a)
{
    bool any = false;
    list_each (node, &a->streams) {
        struct stream *s = CONTAINER_OF(node, struct stream, link);
        any = any || s->is_asleep;
        s->is_over = s->is_over || is_gone(s);
        wake(s);
    }
    if (any)
        admin_poke(a);
}

void streams_end(struct admin *a, const struct front *f)
{
    list_each (node, &a->streams) {
        struct stream *s = CONTAINER_OF(node, struct stream, link);
        if (s->front != f)
            continue;
        s->is_over = true;
        wake(s);
    }
}
