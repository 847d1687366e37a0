/* fuzz_status_line: two bytes that say where to cut, then what a backend answers to a check. */
#include "controlplane/health/status_line.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {(const char *)data, size};
    struct status_line whole = {0}, split = {0};
    size_t cut = fuzz_cut(&in);
    enum status_line_result r = status_line_feed(&whole, (struct view){in.at, in.len});
    status_line_feed(&split, (struct view){in.at, cut});
    PROMISE(status_line_feed(&split, (struct view){in.at + cut, in.len - cut}) == r);
    PROMISE(split.status == whole.status);
    if (r == STATUS_LINE_DONE) {
        PROMISE(in.len >= 14 && memcmp(in.at, "HTTP/1.", 7) == 0);
        PROMISE(whole.status >= 101 && whole.status <= 999);
        PROMISE(whole.status == 101 || whole.status >= 200);
    }
    if (r != STATUS_LINE_MORE) { /* nothing that follows changes it */
        int status = whole.status;
        PROMISE(status_line_feed(&whole, view_of("HTTP/1.1 200 OK\r\n")) == r);
        PROMISE(whole.status == status);
    }
    return 0;
}
