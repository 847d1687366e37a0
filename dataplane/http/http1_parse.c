#include "dataplane/http/http1_parse.h"

#include "dataplane/http/http1_check.h"
#include "dataplane/http/http1_scan.h"

/* A method that is longer is refused without waiting for its end. */
#define MAX_METHOD_BYTES 64

static uint32_t offset(const struct http1_parser *p, const char *at)
{
    return (uint32_t)(at - p->buffer->data);
}

/* When its target begins the method is known: heads that never become complete are counted and
 * logged with theirs. */
static void note_method(struct http1_parser *p)
{
    struct head *h = p->head;
    if (p->extension) {
        h->method = METHOD_EXTENSION;
    } else if (!p->is_response) {
        h->method = p->llhttp.method;
        h->method_len = (uint8_t)strlen(llhttp_method_name((llhttp_method_t)h->method));
    }
}

static int on_target(llhttp_t *l, const char *at, size_t len)
{
    struct http1_parser *p = l->data;
    struct head *h = p->head;
    if (h->target_len == 0) {
        h->target_at = offset(p, at);
        note_method(p);
    }
    h->target_len = offset(p, at) + (uint32_t)len - h->target_at;
    return 0;
}

static int on_name(llhttp_t *l, const char *at, size_t len)
{
    struct http1_parser *p = l->data;
    if (p->name_end == 0)
        p->name_at = offset(p, at);
    p->name_end = offset(p, at) + (uint32_t)len;
    return 0;
}

static int on_value(llhttp_t *l, const char *at, size_t len)
{
    struct http1_parser *p = l->data;
    if (p->value_end == 0)
        p->value_at = offset(p, at);
    p->value_end = offset(p, at) + (uint32_t)len;
    return 0;
}

static int on_field(llhttp_t *l)
{
    struct http1_parser *p = l->data;
    struct head *h = p->head;
    uint32_t name_len = p->name_end - p->name_at;
    uint32_t raw_len = p->value_end > 0 ? p->value_end - p->value_at : 0;
    struct view value = view_trim(head_view(p->buffer, p->value_at, raw_len));
    if (name_len > UINT8_MAX || value.len > UINT16_MAX || h->field_count >= p->max_fields) {
        p->too_large = true;
        return -1;
    }
    struct field *f = &h->fields[h->field_count++];
    f->name_at = p->name_at;
    f->name_len = (uint8_t)name_len;
    f->value_at = value.len > 0 ? offset(p, value.at) : p->name_at;
    f->value_len = (uint16_t)value.len;
    f->id = (uint8_t)field_find(field_name(p->buffer, f));
    head_note(h, h->field_count - 1u);
    p->name_end = p->value_end = 0;
    return 0;
}

static int on_head(llhttp_t *l)
{
    struct http1_parser *p = l->data;
    p->head_done = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_url = on_target,
    .on_status = on_target,
    .on_header_field = on_name,
    .on_header_value = on_value,
    .on_header_value_complete = on_field,
    .on_headers_complete = on_head,
};

void http1_parser_init(struct http1_parser *p, bool is_response, struct head *head,
                       uint32_t max_fields)
{
    p->head = head;
    p->buffer = NULL;
    p->left = 0;
    p->piece_at = p->piece_len = 0;
    p->name_end = p->value_at = p->value_end = 0;
    p->max_fields = (uint16_t)MIN(max_fields, (uint32_t)HEAD_MAX_FIELDS);
    p->framing = FRAMING_NONE;
    p->is_response = is_response;
    p->head_done = p->message_done = p->too_large = false;
    p->odd_method = p->extension = p->begun = false;
    p->reason = R_SERVED;
    p->detail = NULL;
    p->chunked.trailers.count = 0;
    memset(head, 0, offsetof(struct head, fields));
}

/* From here on it is llhttp's. */
static void begin(struct http1_parser *p)
{
    llhttp_init(&p->llhttp, p->is_response ? HTTP_RESPONSE : HTTP_REQUEST, &settings);
    p->llhttp.data = p;
    p->llhttp.lenient_flags |= LENIENT_VERSION;
    p->begun = true;
    /* http1_scan may have left something. */
    memset(p->head, 0, offsetof(struct head, fields));
}

/* Runs llhttp over what is not parsed. Returns its error, HPE_OK and HPE_PAUSED included. */
static enum llhttp_errno run(struct http1_parser *p, struct buffer *b)
{
    const char *from = b->data + b->parsed;
    p->buffer = b;
    enum llhttp_errno e = llhttp_execute(&p->llhttp, from, b->used - b->parsed);
    b->parsed = e == HPE_OK ? b->used : offset(p, llhttp_get_error_pos(&p->llhttp));
    return e;
}

static enum parse_status refuse(struct http1_parser *p, enum reason r, const char *why)
{
    p->reason = r;
    p->detail = why;
    return PARSE_BAD;
}

/* Is it written as methods are, in capitals? Others are refused: a backend that takes "head" for
 * HEAD answers without a body where one would be awaited. */
static bool is_extension_method(struct view word)
{
    for (size_t i = 0; i < word.len; i++) {
        char c = word.at[i];
        if (!((c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.'))
            return false;
    }
    return true;
}

/* llhttp reads on behind the method as if another one had stood there. */
static void begin_behind_method(struct http1_parser *p, struct buffer *b, uint32_t at, uint32_t len)
{
    static const char stand_in[] = "POST";
    begin(p);
    p->odd_method = false;
    p->extension = true;
    p->head->method_len = (uint8_t)len;
    (void)llhttp_execute(&p->llhttp, stand_in, sizeof(stand_in) - 1);
    b->parsed = at + len;
}

/* llhttp stops at the first byte that fits no method it knows. Whether that is another method,
 * which is the backend's to judge (RFC 9110 9.1), or none is seen when the whole word is here,
 * however it comes in. PARSE_HEAD: it is one, and the rest is to be parsed. */
static enum parse_status judge_odd_method(struct http1_parser *p, struct buffer *b)
{
    uint32_t at = 0, len = 0;
    b->parsed = b->used;
    while (at < b->used && (b->data[at] == '\r' || b->data[at] == '\n'))
        at++;
    while (at + len < b->used && len < MAX_METHOD_BYTES && b->data[at + len] != ' ')
        len++;
    if (len > 0 && !http1_is_token(head_view(b, at, len)))
        return refuse(p, R_BAD_REQUEST, "no request line");
    if (at + len == b->used && len < MAX_METHOD_BYTES) {
        p->odd_method = true;
        return PARSE_AGAIN;
    }
    if (len == 0)
        return refuse(p, R_BAD_REQUEST, "no method");
    if (len >= MAX_METHOD_BYTES || !is_extension_method(head_view(b, at, len)))
        return refuse(p, R_NOT_IMPLEMENTED, "unknown method");
    begin_behind_method(p, b, at, len);
    return PARSE_HEAD;
}

/* Has it failed at its method? The methods of RTSP and ICE llhttp knows, but does not take under
 * HTTP.
 */
static bool is_odd_method(const struct http1_parser *p, enum llhttp_errno e)
{
    return !p->is_response && !p->extension &&
           (e == HPE_INVALID_METHOD ||
            (e == HPE_INVALID_CONSTANT && p->llhttp.method >= HTTP_SOURCE));
}

static enum parse_status refuse_head(struct http1_parser *p, enum llhttp_errno e)
{
    if (p->too_large)
        return refuse(p, p->is_response ? R_BAD_RESPONSE : R_HEAD_TOO_LARGE,
                      "too many fields, or one of them too long");
    if (p->is_response)
        return refuse(p, R_BAD_RESPONSE, llhttp_errno_name(e));
    if (e == HPE_PAUSED_H2_UPGRADE)
        return refuse(p, R_BAD_VERSION, "HTTP/2");
    return refuse(p, R_BAD_REQUEST, llhttp_errno_name(e));
}

/* A line of HTTP/0.9: nothing will follow it, so there is nothing to wait for. */
static bool has_no_version(const struct http1_parser *p, const struct buffer *b)
{
    uint32_t after = p->head->target_at + p->head->target_len;
    return !p->is_response && p->head->target_len > 0 && after < b->used &&
           (b->data[after] == '\r' || b->data[after] == '\n');
}

enum parse_status http1_parse_head(struct http1_parser *p, struct buffer *b)
{
    struct head *h = p->head;
    if (!p->begun && (p->is_response ? http1_scan_response(h, b, p->max_fields)
                                     : http1_scan_request(h, b, p->max_fields)))
        return PARSE_HEAD;
    if (!p->begun)
        begin(p);
    enum llhttp_errno e = p->odd_method ? HPE_INVALID_METHOD : run(p, b);
    if (is_odd_method(p, e)) {
        enum parse_status status = judge_odd_method(p, b);
        if (status != PARSE_HEAD)
            return status;
        e = run(p, b);
    }
    if (has_no_version(p, b)) /* however much has come behind it, and whatever that is */
        return refuse(p, R_BAD_REQUEST, "no HTTP version");
    if (e == HPE_OK)
        return PARSE_AGAIN;
    if (e != HPE_PAUSED || !p->head_done)
        return refuse_head(p, e);
    h->major = p->llhttp.http_major;
    h->minor = p->llhttp.http_minor;
    h->status = p->llhttp.status_code;
    h->bytes = b->parsed;
    return PARSE_HEAD;
}

void http1_parse_start_body(struct http1_parser *p, enum framing framing, uint64_t length)
{
    p->framing = (uint8_t)framing;
    p->left = length;
    p->message_done = framing == FRAMING_NONE || (framing == FRAMING_LENGTH && length == 0);
    if (framing == FRAMING_CHUNKED)
        http1_chunked_init(&p->chunked, p->is_response);
}

static enum parse_status parse_chunks(struct http1_parser *p, struct buffer *b)
{
    enum chunked_status status = http1_chunked_decode(&p->chunked, b, &p->piece_at, &p->piece_len);
    p->message_done = status == CHUNKED_DONE;
    if (status == CHUNKED_BAD)
        return refuse(p, p->is_response ? R_BAD_RESPONSE : R_BAD_REQUEST, p->chunked.detail);
    return status == CHUNKED_DONE ? PARSE_DONE : PARSE_AGAIN;
}

enum parse_status http1_parse_body(struct http1_parser *p, struct buffer *b)
{
    p->piece_at = b->parsed;
    p->piece_len = 0;
    if (p->message_done)
        return PARSE_DONE;
    if (p->framing == FRAMING_CHUNKED)
        return parse_chunks(p, b);

    uint32_t have = b->used - b->parsed;
    if (p->framing == FRAMING_LENGTH) {
        have = (uint32_t)MIN((uint64_t)have, p->left);
        p->left -= have;
    }
    p->piece_len = have;
    b->parsed += have;
    p->message_done = p->framing == FRAMING_LENGTH && p->left == 0;
    return p->message_done ? PARSE_DONE : PARSE_AGAIN;
}
