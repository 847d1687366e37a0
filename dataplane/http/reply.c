#include "dataplane/http/reply.h"

#include "dataplane/http/admit.h"
#include "dataplane/http/http1_write.h"
#include "proto/base/json.h"

/* When a client that was told 503 may try again: soon, since reloads, restarts and health checks
 * take about that long. */
#define RETRY_AFTER_SECONDS 1

static size_t write_body(const struct exchange *ex, enum reason r, char *out, size_t cap)
{
    struct head_writer w = head_writer(out, cap);
    char escaped[256];
    write_literal(&w, "{\"error\":\"");
    write_view(&w, view_of(reason_word(r)));
    write_literal(&w, "\",\"message\":\"");
    write_bytes(&w, escaped, json_escape(escaped, sizeof(escaped), view_of(reason_message(r))));
    write_literal(&w, "\",\"request_id\":\"");
    write_bytes(&w, ex->request_id, ex->request_id_len);
    write_literal(&w, "\"}\n");
    return (size_t)(w.at - w.start);
}

static void write_allow(struct head_writer *w, uint64_t allowed)
{
    bool first = true;
    write_literal(w, "Allow: ");
    for (unsigned m = 0; m < 64; m++) {
        if (!(allowed & 1ull << m))
            continue;
        if (!first)
            write_literal(w, ", ");
        write_view(w, view_of(llhttp_method_name((llhttp_method_t)m)));
        first = false;
    }
    write_literal(w, "\r\n");
}

size_t reply_write(struct exchange *ex, enum reason r)
{
    struct worker *worker = ex->client->worker;
    struct head_writer w = head_writer(worker->scratch, worker->scratch_bytes);
    char body[1024];
    size_t body_len = write_body(ex, r, body, sizeof(body));
    unsigned status = reason_status(r);

    write_status_line(&w, status, (struct view){NULL, 0});
    write_literal(&w, "Content-Type: application/json\r\nContent-Length: ");
    write_number(&w, body_len);
    write_literal(&w, "\r\nDate: ");
    write_view(&w, date_text(&worker->date, worker_wall(worker)));
    write_literal(&w, "\r\nX-Request-ID: ");
    write_bytes(&w, ex->request_id, ex->request_id_len);
    write_literal(&w, "\r\n");
    if (status == 503 || status == 429) {
        write_literal(&w, "Retry-After: ");
        write_number(&w, MAX(ex->retry_after_s, RETRY_AFTER_SECONDS));
        write_literal(&w, "\r\n");
    }
    admit_write_reply(&w, ex);
    if (r == R_METHOD_NOT_ALLOWED)
        write_allow(&w, ex->allowed);
    if (!ex->keep_client)
        write_literal(&w, "Connection: close\r\n");
    else if (ex->client_http10)
        write_literal(&w, "Connection: keep-alive\r\n");
    write_literal(&w, "\r\n");
    if (ex->head.method != HTTP_HEAD)
        write_bytes(&w, body, body_len);
    return (size_t)(w.at - w.start);
}
