/* exchange: one request and its response, from a complete head to the log line. One worker's; owned
 * by its downstream. It holds the snapshot it lives under, decides by it, and moves bytes both ways
 * at once, each way with its own relay. Hot path: a recycled struct, no allocation, no lock, four
 * system calls.
 *
 *   request:   REQ_HEAD -> REQ_BODY -> REQ_DONE      response:   RES_NONE -> RES_BODY -> RES_DONE
 *                              \-> REQ_ABANDONED -> REQ_UNWANTED      \-> RES_OWN
 *
 * Here is what frames it: begin and end, answers of our own, the client's deadlines and its end.
 * request.c is what comes from the client, attempt.c one try at one endpoint, response.c what comes
 * back, tunnel.c what may follow.
 *
 * REQ_ABANDONED: the backend takes no more of the body; what it answers is still passed on.
 * REQ_UNWANTED: all is answered and accounted for; what little is still to come of the body is
 * thrown away, so that the connection can go on.
 * RES_OWN: the gateway answers itself. RES_BODY: a final head was passed on, from here on a failure
 * can only cut the response off. */
#pragma once

#include "dataplane/http/client_addr.h"
#include "dataplane/http/downstream.h"
#include "dataplane/http/http1_parse.h"
#include "dataplane/http/relay.h"
#include "dataplane/http/target.h"
#include "dataplane/http/trace.h"
#include "dataplane/http/upstream.h"

#define REQUEST_ID_MAX_BYTES 128
#define RESPONSE_HEAD_MAX_BYTES (64u * 1024)

/* So much of an unwanted body is read for the sake of its connection: about what a new one costs.
 */
#define SKIP_MAX_BYTES (256u * 1024)

/* So much of an answer is taken to have left, and mostly arrived, when its connection is closed. */
#define SURELY_SENT_BYTES (64u * 1024)

/* A client that has ended its side after a whole request gets its answer, as long as that comes
 * with pauses of no more than this: most that end their side have gone away, and until something is
 * sent to them nobody can tell. */
#define HALF_CLOSED_MS 1000

enum request_state { REQ_HEAD, REQ_BODY, REQ_DONE, REQ_ABANDONED, REQ_UNWANTED };
enum response_state { RES_NONE, RES_BODY, RES_DONE, RES_OWN };

struct exchange {
    struct list link; /* of worker.spare_exchanges */
    struct downstream *client;
    struct upstream *upstream;   /* owned; NULL before and between attempts */
    struct snapshot *snapshot;   /* held; NULL before the head is complete, and again in a tunnel */
    const struct route *route;   /* of the snapshot; NULL when none matched */
    const struct target *target; /* of the route: the present attempt's; NULL between attempts */
    const struct target *last_target; /* of the attempt before, to be avoided */
    /* What outlives the snapshot, for counting and logging; a tunnel holds the last two. */
    struct route_state *route_state;
    struct target_state *target_state; /* counted in its `active`; NULL between attempts */
    struct endpoint *endpoint;         /* of the last attempt */
    breaker_permit permit;             /* of the attempt; its breaker is owed a report; 0 = none */
    uint32_t retry_after_s;            /* for a client that is told 503 or 429; 0 = soon */
    uint64_t generation, max_body_bytes;
    uint32_t response_idle_ms;
    uint8_t request_state, response_state;
    uint8_t attempts;
    bool retrying;    /* counted in worker.retrying */
    bool met_stale;   /* the first attempt was made on a kept connection that had ended */
    bool replayable;  /* the whole request is still in the buffer, and the client has got nothing */
    bool where_stale; /* `where` points to memory that may have moved */
    bool keep_client; /* the connection goes on after this exchange */
    bool client_http10;
    bool upgrade; /* the client asks for another protocol, and that may be passed on */
    bool tunnel;  /* and got it: bytes both ways, tunnel.c */
    uint8_t client_ip_len, request_id_len;
    uint8_t trace;            /* enum trace */
    bool trailers_named;      /* by the answer's Connection, perhaps: they end here */
    bool peer_trusted;        /* its X-Forwarded-* and Forwarded are added to, not replaced */
    uint16_t status;          /* sent to the client; 0 = none yet */
    uint16_t upstream_status; /* 0 = none */
    enum reason reason;
    const char *detail;            /* static words, or NULL */
    double began_s;                /* its first byte had come; monotonic */
    double started_s, wall_s;      /* the head was complete; monotonic, wall clock */
    double attempt_s, connected_s; /* monotonic; 0 = not yet */
    double connect_s, upstream_s;  /* durations, negative = did not happen */
    uint64_t body_in, body_out;
    uint32_t interim_bytes;      /* of 1xx heads before the answer */
    uint64_t allowed;            /* methods, for Allow */
    struct limit_verdict limit;  /* with limit_said; admit.c */
    const char *limit_said;      /* for logs: the word of decisions.def; NULL = no limit */
    bool limit_known;            /* `limit` says something */
    uint32_t limit_gateways;     /* it is one's share of so many; 1 = all of it */
    struct limit_ask *limit_ask; /* Redis is being asked; NULL = not, or not any more */
    struct digest128 limit_key;  /* in the table of this process */
    const char *breaker_said;    /* for logs: the state it was asked in; NULL = no breaker */
    struct request_target where;
    struct view host; /* as the client named it, without port; like `where` */
    struct relay to_upstream, to_client;
    uint32_t skip_left;             /* in REQ_UNWANTED */
    uint32_t replay_at, replay_len; /* the body in the client's buffer, while replayable */
    struct ip ip;                   /* the client's, as far as it can be known; for a Unix peer 0 */
    /* From here on nothing is cleared when an exchange begins. */
    struct http1_parser request, response;
    char client_ip[INET6_ADDRSTRLEN];
    char request_id[REQUEST_ID_MAX_BYTES];
    char traceparent[TRACE_PARENT_BYTES]; /* with TRACE_MADE */
    struct head head;                     /* the request's */
    struct head answer;                   /* the response's */
};

static inline struct worker *exchange_worker(const struct exchange *ex)
{
    return ex->client->worker;
}

/* Bytes of a new request have arrived. */
struct exchange *exchange_begin(struct downstream *c);

void exchange_client_writable(struct exchange *ex);
void exchange_client_timeout(struct exchange *ex);
/* The client sends no more (downstream.ended): it is gone, if that leaves its request incomplete.
 */
void exchange_client_ended(struct exchange *ex);
/* The client has gone away for certain. */
void exchange_client_gone(struct exchange *ex);

/* The worker ends now: 503 if nothing was answered yet, else cut off. */
void exchange_stop(struct exchange *ex);

/* ---- for request.c, attempt.c, response.c and tunnel.c ---- */

/* From here on the exchange lives under one snapshot, has a name and is counted. */
void exchange_adopt(struct exchange *ex);

/* Does the client still owe room for what the backend has said? Then its deadline is that of
 * writing, and nothing more is read from the backend. */
bool exchange_client_is_full(const struct exchange *ex);

/* relay_flush() of `to_client`, counted. */
MUST_CHECK enum io_status exchange_flush_client(struct exchange *ex, const struct buffer *source);

/* Would what is still to come of the body be thrown away behind an answer, rather than end the
 * connection? */
bool exchange_may_skip_body(const struct exchange *ex);

/* REQ_UNWANTED: throws away what has come of the body. */
void exchange_skip_body(struct exchange *ex);

/* Answers with the reason's own status and ends the exchange; not once a final head was sent. */
void exchange_answer(struct exchange *ex, enum reason r, const char *detail);

/* The answer has begun and cannot be completed: the client must see that (RFC 9112 8). */
void exchange_cut(struct exchange *ex, enum reason why, const char *detail);

/* The snapshot is not needed any more. */
void exchange_let_go_of_snapshot(struct exchange *ex);
/* The client has got all it will get: counts, logs, ends; the connection goes on where it may. */
void exchange_finish(struct exchange *ex);

/* Nothing is awaited from the client, for now or for good: its deadline, unless it is full. */
void exchange_rest_client(struct exchange *ex);

/* Trailers travel on where the next hop's framing has a place for them, else they end here (RFC
 * 9110 6.5.1). */
void exchange_pass_trailers(struct exchange *ex, struct relay *relay, const struct http1_parser *p,
                            const struct buffer *from);

/* The snapshot's settings, for those who hold only the exchange or the worker. */
const struct server_settings *exchange_settings(const struct exchange *ex);
