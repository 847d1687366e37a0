/* fuzz_target: the method, then a request target. */
#include <llhttp.h>

#include "dataplane/http/target.h"
#include "fuzz.h"

static enum reason parse(const char *bytes, size_t len, unsigned method, char **scratch,
                         struct request_target *t)
{
    const char *detail = NULL;
    *scratch = malloc(len + 1);
    PROMISE(*scratch);
    enum reason r = target_parse((struct view){bytes, len}, method, *scratch, t, &detail);
    PROMISE(r == R_SERVED || detail);
    return r;
}

static int hex(char c)
{
    const char *digits = "0123456789ABCDEF", *at = c ? strchr(digits, c) : NULL;
    PROMISE(at);
    return (int)(at - digits);
}

/* As a careless server would read the path: everything decoded, "\" taken for "/", parameters cut
 * off each segment. Even so nothing climbs. */
static void promise_no_climbing(struct view path)
{
    char *flat = malloc(path.len + 1);
    size_t n = 0;
    PROMISE(flat);
    for (size_t i = 0; i < path.len; i++) {
        char c = path.at[i];
        if (c == '%') {
            PROMISE(i + 2 < path.len);
            c = (char)(hex(path.at[i + 1]) << 4 | hex(path.at[i + 2]));
            i += 2;
            PROMISE(c != '\0');
        }
        flat[n++] = c == '\\' ? '/' : c;
    }
    for (size_t i = 0; i < n;) {
        size_t len = 0;
        while (i + len < n && flat[i + len] != '/')
            len++;
        const char *parameters = len > 0 ? memchr(flat + i, ';', len) : NULL;
        size_t name_len = parameters ? (size_t)(parameters - (flat + i)) : len;
        PROMISE(!(name_len == 1 && flat[i] == '.'));
        PROMISE(!(name_len == 2 && flat[i] == '.' && flat[i + 1] == '.'));
        i += len + 1;
    }
    free(flat);
}

static void promise_no_bad_bytes(struct view v, char nor)
{
    for (size_t i = 0; i < v.len; i++)
        PROMISE((unsigned char)v.at[i] > ' ' && (unsigned char)v.at[i] < 127 && v.at[i] != '#' &&
                v.at[i] != nor);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {(const char *)data, size};
    unsigned method = fuzz_byte(&in) & 1 ? HTTP_OPTIONS : HTTP_GET;
    struct request_target t, again;
    struct fuzz_text sent = {NULL, 0, 0};
    char *scratch, *scratch_again;
    if (parse(in.at, in.len, method, &scratch, &t) == R_SERVED) {
        PROMISE(t.path.len > 0 && (t.path.at[0] == '/' || method == HTTP_OPTIONS));
        promise_no_bad_bytes(t.path, '\\');
        promise_no_bad_bytes(t.query, '#');
        promise_no_climbing(t.path);
        /* What is sent on means to the next reader what it meant to us. */
        fuzz_put_view(&sent, t.path);
        fuzz_put_view(&sent, t.query);
        PROMISE(parse(sent.at, sent.len, method, &scratch_again, &again) == R_SERVED);
        PROMISE(view_equal(t.path, again.path) && view_equal(t.query, again.query));
        PROMISE(again.authority.len == 0);
        free(scratch_again);
        free(sent.at);
    }
    free(scratch);
    return 0;
}
