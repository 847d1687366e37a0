#include "dataplane/http/forward.h"

#include "dataplane/http/admit.h"
#include "dataplane/http/http1_check.h"
#include "dataplane/http/http1_write.h"
#include "dataplane/http/request.h"

/* How this hop is called in Via, behind the version that a message came in with (RFC 9110 7.6.3).
 */
#define VIA_NAME " gateway-pro"

/* A field that a Connection field names belongs to the connection as well (RFC 9110 7.6.1). */
static bool is_listed(const struct head *h, const struct buffer *b, struct view name)
{
    return http1_lists_token(h, b, FIELD_CONNECTION, name);
}

/* The end of a field's line that stands in the buffer as it would be written, 0 if it does not. */
static uint32_t line_end(const struct buffer *b, const struct field *f)
{
    uint32_t end = f->value_at + f->value_len;
    bool as_written = f->value_len > 0 && f->value_at == f->name_at + f->name_len + 2u &&
                      b->data[f->value_at - 1] == ' ' && b->data[end] == '\r';
    return as_written ? end + 2 : 0;
}

/* Of names that fields.def does not list: is it left out all the same? */
typedef bool omits_fn(struct view name);

/* Fields that are passed on as they are, lines that follow each other at once; `omits` may be NULL.
 * HTTP/1.0 knows no expectations: what goes on as HTTP/1.1 must not have one (RFC 9110 10.1.1). */
static void write_passing_fields(struct head_writer *w, const struct head *h,
                                 const struct buffer *b, const struct edits *edits, omits_fn *omits)
{
    bool listing = h->at[FIELD_CONNECTION] != 0;
    uint32_t from = 0, to = 0; /* lines to be written */
    for (unsigned i = 0; i < h->field_count; i++) {
        const struct field *f = &h->fields[i];
        struct view name = field_name(b, f);
        if (field_fate((enum field_id)f->id) != KEEP || (listing && is_listed(h, b, name)) ||
            edits_drop(edits, name) || (omits && f->id == FIELD_OTHER && omits(name)) ||
            (f->id == FIELD_EXPECT && h->minor == 0))
            continue;
        uint32_t end = line_end(b, f);
        if (f->name_at != to || end == 0) {
            write_view(w, head_view(b, from, to - from));
            from = f->name_at;
        }
        to = end;
        if (end == 0) {
            write_field(w, name, field_value(b, f));
            from = 0;
        }
    }
    write_view(w, head_view(b, from, to - from));
}

static void write_body_framing(struct head_writer *w, enum framing framing, uint64_t length)
{
    if (framing == FRAMING_CHUNKED) {
        write_literal(w, "Transfer-Encoding: chunked\r\n");
    } else if (framing == FRAMING_LENGTH) {
        write_literal(w, "Content-Length: ");
        write_number(w, length);
        write_literal(w, "\r\n");
    }
}

/* [base path of the backend][path, its route's prefix taken off if so configured][query] */
static void write_target(struct head_writer *w, const struct exchange *ex)
{
    const struct route *route = ex->route;
    struct view path = ex->where.path;
    if (route->strip_prefix && route->path_prefix.len > 1) {
        path.at += route->path_prefix.len;
        path.len -= route->path_prefix.len;
    }
    if (path.at != ex->where.path.at && path.len == 0)
        path = (struct view){"/", 1};
    if (path.at[0] != '*')
        write_view(w, ex->target->base_path);
    write_view(w, path);
    write_view(w, ex->where.query);
}

/* A field that the gateway writes itself, unless the route sets or removes it. A macro, so that
 * name and colon are one piece of known length. */
#define WRITE_OWN(w, edits, name, value)                                                           \
    do {                                                                                           \
        if (!edits_drop(edits, VIEW(name))) {                                                      \
            write_literal(w, name ": ");                                                           \
            write_view(w, value);                                                                  \
            write_literal(w, "\r\n");                                                              \
        }                                                                                          \
    } while (0)

static struct edit_values values_of(const struct exchange *ex, struct view client_host)
{
    return (struct edit_values){{[EDIT_CLIENT_IP] = {ex->client_ip, ex->client_ip_len},
                                 [EDIT_REQUEST_ID] = {ex->request_id, ex->request_id_len},
                                 [EDIT_HOST] = client_host,
                                 [EDIT_ROUTE] = ex->route->name}};
}

/* The host as the client named it: the target's authority wins over Host (RFC 9112 3.2.2). */
static struct view host_of(const struct exchange *ex)
{
    if (ex->where.authority.len > 0)
        return ex->where.authority;
    return head_value(&ex->head, ex->client->in, FIELD_HOST);
}

/* "Name: " and what a trusted peer said under that name, all its fields as one list; false if it
 * said nothing. */
static bool write_received(struct head_writer *w, const struct exchange *ex, struct view name,
                           enum field_id id)
{
    const struct head *h = &ex->head;
    bool found = false;
    for (unsigned i = h->at[id]; ex->peer_trusted && i > 0 && i <= h->field_count; i++) {
        const struct field *f = &h->fields[i - 1];
        if (f->id != id || f->value_len == 0)
            continue;
        if (!found) {
            write_view(w, name);
            write_literal(w, ": ");
        } else {
            write_literal(w, ", ");
        }
        write_view(w, field_value(ex->client->in, f));
        found = true;
    }
    return found;
}

/* What a trusted peer says goes before `ours` (append) or in its place; what others say was left
 * out. */
static void write_hop(struct head_writer *w, const struct exchange *ex, struct view name,
                      enum field_id id, struct view ours, bool append)
{
    if (edits_drop(&ex->route->request_edits, name))
        return;
    if (!write_received(w, ex, name, id)) {
        write_field(w, name, ours);
        return;
    }
    if (append) {
        write_literal(w, ", ");
        write_view(w, ours);
    }
    write_literal(w, "\r\n");
}

/* RFC 7239, only where somebody used it before us: for=1.2.3.4;host="example.com";proto=http */
static void write_forwarded(struct head_writer *w, const struct exchange *ex, struct view peer,
                            struct view client_host)
{
    if (!ex->head.at[FIELD_FORWARDED] || edits_drop(&ex->route->request_edits, VIEW("Forwarded")))
        return;
    bool is_v6 = peer.len > 0 && memchr(peer.at, ':', peer.len);
    if (write_received(w, ex, VIEW("Forwarded"), FIELD_FORWARDED))
        write_literal(w, ", ");
    else
        write_literal(w, "Forwarded: ");
    if (ex->client->family == AF_UNIX)
        write_literal(w, "for=unknown");
    else if (is_v6)
        write_literal(w, "for=\"[");
    else
        write_literal(w, "for=");
    if (ex->client->family != AF_UNIX)
        write_view(w, peer);
    if (is_v6)
        write_literal(w, "]\"");
    if (client_host.len > 0) {
        write_literal(w, ";host=\"");
        write_view(w, client_host);
        write_literal(w, "\"");
    }
    write_literal(w, ";proto=http\r\n");
}

/* The names that peers are believed under, or not. */
static void write_hops(struct head_writer *w, const struct exchange *ex, struct view peer,
                       struct view client_host)
{
    const struct edits *edits = &ex->route->request_edits;
    if (ex->peer_trusted) {
        write_hop(w, ex, VIEW("X-Forwarded-For"), FIELD_FORWARDED_FOR, peer, true);
        write_hop(w, ex, VIEW("X-Forwarded-Proto"), FIELD_FORWARDED_PROTO, VIEW("http"), false);
        if (client_host.len > 0)
            write_hop(w, ex, VIEW("X-Forwarded-Host"), FIELD_FORWARDED_HOST, client_host, false);
    } else {
        WRITE_OWN(w, edits, "X-Forwarded-For", peer);
        WRITE_OWN(w, edits, "X-Forwarded-Proto", VIEW("http"));
        if (client_host.len > 0)
            WRITE_OWN(w, edits, "X-Forwarded-Host", client_host);
    }
}

/* Who asked, by which name and way. */
static void write_forwarding(struct head_writer *w, const struct exchange *ex,
                             struct view client_host)
{
    const struct edits *edits = &ex->route->request_edits;
    char peer_text[INET6_ADDRSTRLEN];
    struct view client_ip = {ex->client_ip, ex->client_ip_len}, peer = client_ip;
    if (ex->peer_trusted)
        peer = (struct view){peer_text, downstream_ip(ex->client, peer_text)};
    write_hops(w, ex, peer, client_host);
    write_forwarded(w, ex, peer, client_host);
    WRITE_OWN(w, edits, "X-Real-IP", client_ip);
    WRITE_OWN(w, edits, "X-Request-ID", ((struct view){ex->request_id, ex->request_id_len}));
    if (ex->trace == TRACE_MADE)
        WRITE_OWN(w, edits, "traceparent",
                  ((struct view){ex->traceparent, sizeof(ex->traceparent)}));
}

/* TE and Upgrade belong to one connection: where they shall go on, this hop says so itself. Of TE
 * only "trailers" does (RFC 9110 10.1.4). */
static void write_connection(struct head_writer *w, const struct exchange *ex)
{
    static const struct view trailers = {"trailers", 8};
    const struct buffer *b = ex->client->in;
    bool te = http1_lists_token(&ex->head, b, FIELD_TE, trailers);
    if (te)
        write_literal(w, "TE: trailers\r\n");
    if (ex->upgrade) {
        write_literal(w, "Upgrade: ");
        write_view(w, head_value(&ex->head, b, FIELD_UPGRADE));
        write_literal(w, "\r\n");
    }
    if (te && ex->upgrade)
        write_literal(w, "Connection: TE, upgrade\r\n");
    else if (te)
        write_literal(w, "Connection: TE\r\n");
    else if (ex->upgrade)
        write_literal(w, "Connection: upgrade\r\n");
}

size_t forward_trailers(const struct trailers *t, const struct buffer *from, const struct head *h,
                        const struct edits *edits, char *out, size_t cap)
{
    struct head_writer w = head_writer(out, cap);
    bool listing = h && h->at[FIELD_CONNECTION] != 0;
    for (uint32_t i = 0; i < t->count; i++) {
        struct view name = field_name(from, &t->fields[i]);
        if ((!listing || !is_listed(h, from, name)) && !edits_drop(edits, name))
            write_field(&w, name, field_value(from, &t->fields[i]));
    }
    return w.overflow ? 0 : (size_t)(w.at - w.start);
}

size_t forward_request(struct exchange *ex)
{
    struct worker *worker = ex->client->worker;
    const struct buffer *b = ex->client->in;
    const struct head *h = &ex->head;
    const struct edits *edits = &ex->route->request_edits;
    struct head_writer w = head_writer(worker->scratch, worker->scratch_bytes);
    struct view client_host = host_of(ex);

    write_view(&w, head_method(h, b));
    write_literal(&w, " ");
    write_target(&w, ex);
    write_literal(&w, " HTTP/1.1\r\nHost: ");
    write_view(&w,
               ex->route->preserve_host && client_host.len > 0 ? client_host : ex->target->host);
    write_literal(&w, "\r\n");
    write_passing_fields(&w, h, b, edits, ex->peer_trusted ? NULL : field_claims_forwarding);
    write_forwarding(&w, ex, client_host);
    WRITE_OWN(&w, edits, "Via", ex->client_http10 ? VIEW("1.0" VIA_NAME) : VIEW("1.1" VIA_NAME));
    if (edits->line_count > 0) {
        struct edit_values values = values_of(ex, client_host);
        edits_write(edits, &values, &w);
    }
    write_connection(&w, ex);
    write_body_framing(&w, (enum framing)h->framing, h->content_length);
    write_literal(&w, "\r\n");
    return w.overflow ? 0 : (size_t)(w.at - w.start);
}

static void write_upgrade(struct head_writer *w, const struct head *h, const struct buffer *b)
{
    write_literal(w, "Connection: upgrade\r\nUpgrade: ");
    write_view(w, head_value(h, b, FIELD_UPGRADE));
    write_literal(w, "\r\n");
}

static void write_client_connection(struct head_writer *w, const struct exchange *ex)
{
    if (!ex->keep_client)
        write_literal(w, "Connection: close\r\n");
    else if (ex->client_http10)
        write_literal(w, "Connection: keep-alive\r\n");
}

size_t forward_response(struct exchange *ex)
{
    struct worker *worker = ex->client->worker;
    const struct buffer *b = ex->upstream->in;
    const struct head *h = &ex->answer;
    const struct edits *edits = &ex->route->response_edits;
    struct head_writer w = head_writer(worker->scratch, worker->scratch_bytes);
    write_status_line(&w, h->status, head_view(b, h->target_at, h->target_len));
    write_passing_fields(&w, h, b, edits, admit_tells(ex) ? admit_is_field : NULL);
    WRITE_OWN(&w, edits, "X-Request-ID", ((struct view){ex->request_id, ex->request_id_len}));
    if (!h->at[FIELD_DATE]) /* whoever passes it on has to see to that (RFC 9110 6.6.1) */
        WRITE_OWN(&w, edits, "Date", date_text(&worker->date, worker_wall(worker)));
    admit_write_fields(&w, ex);
    if (edits->line_count > 0) {
        (void)request_find_where(
            ex); /* the client's host may have moved since the request was sent */
        struct edit_values values = values_of(ex, host_of(ex));
        edits_write(edits, &values, &w);
    }
    /* Where there is no body, a length still tells how long it would have been: HEAD and 304 (RFC
     * 9110 8.6). */
    if (ex->to_client.chunked)
        write_literal(&w, "Transfer-Encoding: chunked\r\n");
    else if (h->at[FIELD_CONTENT_LENGTH] && h->status != 204)
        write_body_framing(&w, FRAMING_LENGTH, h->content_length);
    if (h->status == 426 && h->at[FIELD_UPGRADE]) /* it must say what to (RFC 9110 15.5.22) */
        write_upgrade(&w, h, b);
    write_client_connection(&w, ex);
    write_literal(&w, "\r\n");
    return w.overflow ? 0 : (size_t)(w.at - w.start);
}

static size_t write_interim(struct exchange *ex, bool switching)
{
    struct worker *worker = ex->client->worker;
    const struct buffer *b = ex->upstream->in;
    const struct head *h = &ex->answer;
    struct head_writer w = head_writer(worker->scratch, worker->scratch_bytes);
    write_status_line(&w, h->status, head_view(b, h->target_at, h->target_len));
    write_passing_fields(&w, h, b, &ex->route->response_edits, NULL);
    if (switching)
        write_upgrade(&w, h, b);
    write_literal(&w, "\r\n");
    return w.overflow ? 0 : (size_t)(w.at - w.start);
}

size_t forward_interim(struct exchange *ex)
{
    return write_interim(ex, false);
}

size_t forward_switch(struct exchange *ex)
{
    return write_interim(ex, true);
}
