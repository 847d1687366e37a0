#include "controlplane/inquiry.h"

#include <stdlib.h>
#include <string.h>

#include "proto/base/log.h"

struct inquiry {
    struct list link; /* of inquiries.all */
    struct inquiries *inquiries;
    uint64_t id;
    inquiry_fn *done;
    void *owner; /* borrowed */
    ev_timer patience;
};

/* The one way out. */
static void end(struct inquiry *one, const Gwp__Explanation *answer, const char *why)
{
    struct inquiries *q = one->inquiries;
    ev_timer_stop(q->loop, &one->patience);
    list_remove(&one->link);
    q->count--;
    one->done(one->owner, answer, why);
    free(one);
}

static void on_patience(struct ev_loop *loop, ev_timer *w, int revents)
{
    end(w->data, NULL, "the data plane did not answer in time");
}

static struct session *who_explains(const struct sessions *ss)
{
    sessions_each(s, ss)
    {
        if (s->explains)
            return s;
    }
    return NULL;
}

void inquiries_ask(struct inquiries *q, struct view head, const char *client, inquiry_fn *done,
                   void *owner)
{
    struct session *s = who_explains(q->sessions);
    if (!s || q->count == INQUIRY_MAX) {
        done(owner, NULL,
             s ? "too many questions are under way" : "no data plane is connected that could tell");
        return;
    }
    struct inquiry *one = calloc(1, sizeof(*one));
    if (!one)
        log_fatal("inquiry", "out of memory");
    *one = (struct inquiry){.inquiries = q, .id = ++q->last_id, .done = done, .owner = owner};
    ev_timer_init(&one->patience, on_patience, INQUIRY_SECONDS, 0.);
    one->patience.data = one;
    ev_timer_start(q->loop, &one->patience);
    list_push_back(&q->all, &one->link);
    q->count++;
    Gwp__Explain question = GWP__EXPLAIN__INIT;
    question.id = one->id;
    question.head = (ProtobufCBinaryData){head.len, (uint8_t *)head.at};
    question.client = (char *)client;
    session_send(s, MSG_EXPLAIN, &question.base, NULL, 0);
}

void inquiries_answered(struct inquiries *q, const Gwp__Explanation *answer)
{
    list_each_safe (node, &q->all) {
        struct inquiry *one = CONTAINER_OF(node, struct inquiry, link);
        if (one->id != answer->id)
            continue;
        end(one, answer, "");
        return;
    }
}

void inquiries_init(struct inquiries *q, struct ev_loop *loop, struct sessions *sessions)
{
    memset(q, 0, sizeof(*q));
    q->loop = loop;
    q->sessions = sessions;
    list_init(&q->all);
}

void inquiries_fini(struct inquiries *q)
{
    if (!q->loop)
        return;
    list_each_safe (node, &q->all)
        end(CONTAINER_OF(node, struct inquiry, link), NULL, "the control plane is stopping");
}
