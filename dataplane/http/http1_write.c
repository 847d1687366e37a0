#include "dataplane/http/http1_write.h"

#include "proto/base/digits.h"

void write_number(struct head_writer *w, uint64_t n)
{
    char text[DIGITS_MAX];
    size_t len = digits_decimal(text, n);
    write_bytes(w, text, len);
}

struct view status_phrase(unsigned status)
{
    static const struct {
        unsigned status;
        const char *phrase;
    } phrases[] = {
        {100, "Continue"},
        {101, "Switching Protocols"},
        {103, "Early Hints"},
        {200, "OK"},
        {204, "No Content"},
        {304, "Not Modified"},
        {400, "Bad Request"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {417, "Expectation Failed"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < COUNT_OF(phrases); i++)
        if (phrases[i].status == status)
            return view_of(phrases[i].phrase);
    return (struct view){"", 0};
}

void write_status_line(struct head_writer *w, unsigned status, struct view phrase)
{
    char digits[3] = {(char)('0' + status / 100), (char)('0' + status / 10 % 10),
                      (char)('0' + status % 10)};
    write_literal(w, "HTTP/1.1 ");
    write_bytes(w, digits, 3);
    write_literal(w, " ");
    write_view(w, phrase.len > 0 ? phrase : status_phrase(status));
    write_literal(w, "\r\n");
}
