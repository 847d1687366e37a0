#include "controlplane/succession.h"

#include <stdlib.h>
#include <string.h>

#include "proto/base/log.h"

static char *copy(const char *text)
{
    char *out = strdup(text);
    if (!out)
        log_fatal("succession", "out of memory");
    return out;
}

/* The one way out of WAITING. */
static void finish(struct succession *sn, enum succession_verdict verdict, const char *message)
{
    struct succession_outcome outcome = {.verdict = verdict,
                                         .message = message,
                                         .name = sn->name,
                                         .old_pid = sn->old_pid,
                                         .new_pid = sn->new_pid};
    char *name = sn->name, *instance_id = sn->instance_id;
    ev_timer_stop(sn->loop, &sn->deadline);
    if (verdict != SUCCESSION_DONE)
        log_about(
            LOG_ERROR, "succession",
            LOG_FIELDS(about_dataplane(name), about_process(sn->old_pid), about_cause(message)),
            "data plane %s is not replaced: %s", name, message);
    sn->name = sn->instance_id = NULL;
    sn->done(sn->owner, &outcome);
    free(name);
    free(instance_id);
}

static void refuse(succession_done_fn *done, void *owner, enum succession_verdict verdict,
                   const char *name, const struct err *why)
{
    done(owner, &(struct succession_outcome){verdict, why->text, name, 0, 0});
}

static struct session *find(const struct succession *sn, const char *name, struct err *err)
{
    struct session *found = NULL;
    bool any = strcmp(name, "*") == 0;
    sessions_each(s, sn->sessions)
    {
        if (!s->serves || s->leaving || !(any || strcmp(s->name, name) == 0))
            continue;
        if (found) {
            err_set(err, "there are several data planes (%s, %s): say which", found->name, s->name);
            return NULL;
        }
        found = s;
    }
    if (!found)
        err_set(err, any ? "no data plane serves" : "no data plane %.100s serves", name);
    else if (!found->keeps)
        err_set(err, "data plane %s, version %s, cannot start a successor", found->name,
                found->version);
    return found && found->keeps ? found : NULL;
}

void succession_begin(struct succession *sn, const char *name, const char *binary,
                      double wait_seconds, succession_done_fn *done, void *owner)
{
    struct err err;
    Gwp__Replace order = GWP__REPLACE__INIT;
    if (sn->name) {
        err_set(&err, "data plane %s is being replaced already", sn->name);
        refuse(done, owner, SUCCESSION_BUSY, name, &err);
        return;
    }
    struct session *s = find(sn, name, &err);
    if (!s) {
        refuse(done, owner, SUCCESSION_UNKNOWN, name, &err);
        return;
    }
    sn->name = copy(s->name);
    sn->instance_id = copy(s->instance_id);
    sn->old_pid = s->pid;
    sn->new_pid = 0;
    sn->done = done;
    sn->owner = owner;
    ev_timer_set(&sn->deadline, wait_seconds, 0.);
    ev_timer_start(sn->loop, &sn->deadline);
    order.binary = (char *)binary;
    log_about(LOG_INFO, "succession", LOG_FIELDS(about_dataplane(s->name), about_process(s->pid)),
              "data plane %s, process %llu, is told to start its successor%s%s", s->name,
              (unsigned long long)s->pid, binary[0] ? ": " : "", binary);
    session_send(s, MSG_REPLACE, &order.base, NULL, 0);
}

static bool is_the_old_one(const struct succession *sn, const struct session *s)
{
    return sn->name && strcmp(sn->instance_id, s->instance_id) == 0;
}

void succession_started(struct succession *sn, const struct session *s, const Gwp__ReplaceResult *r)
{
    if (!is_the_old_one(sn, s))
        return;
    sn->new_pid = r->pid;
    if (r->pid == 0)
        finish(sn, SUCCESSION_FAILED, r->reason);
}

void succession_served(struct succession *sn, const struct session *s)
{
    if (!sn->name || is_the_old_one(sn, s) || strcmp(sn->name, s->name) != 0 || !s->serves)
        return;
    sn->new_pid = s->pid;
    finish(sn, SUCCESSION_DONE, "");
}

void succession_gone(struct succession *sn, const struct session *s)
{
    if (is_the_old_one(sn, s))
        finish(sn, SUCCESSION_FAILED, "it went away before its successor served");
}

static void on_deadline(struct ev_loop *loop, ev_timer *timer, int events)
{
    finish(timer->data, SUCCESSION_TIMEOUT,
           "its successor does not serve yet; the old one goes on, and leaves when it does");
}

void succession_init(struct succession *sn, struct ev_loop *loop, struct sessions *sessions)
{
    memset(sn, 0, sizeof(*sn));
    sn->loop = loop;
    sn->sessions = sessions;
    ev_timer_init(&sn->deadline, on_deadline, 0., 0.);
    sn->deadline.data = sn;
}

void succession_fini(struct succession *sn)
{
    if (sn->name)
        finish(sn, SUCCESSION_FAILED, "the control plane is stopping");
}
