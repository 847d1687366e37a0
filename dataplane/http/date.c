#include "dataplane/http/date.h"

struct civil date_civil(uint64_t second)
{
    static const uint8_t month_days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    uint64_t days = second / 86400;
    unsigned rest = (unsigned)(second % 86400), month = 0, leap;
    struct civil c = {.year = 1970,
                      .weekday = (unsigned)((days + 4) % 7), /* 1970 began on a Thursday */
                      .hour = rest / 3600,
                      .minute = rest / 60 % 60,
                      .second = rest % 60};
    for (;; c.year++) {
        leap = (c.year % 4 == 0 && c.year % 100 != 0) || c.year % 400 == 0;
        if (days < 365 + leap || c.year == 9999)
            break;
        days -= 365 + leap;
    }
    for (unsigned n; month < 11 && days >= (n = month_days[month] + (month == 1) * leap); month++)
        days -= n;
    c.month = month + 1;
    c.day = (unsigned)days + 1;
    return c;
}

static char *put(char *at, const char *text, size_t len)
{
    memcpy(at, text, len);
    return at + len;
}

static char *put_two(char *at, unsigned n)
{
    at[0] = (char)('0' + n / 10 % 10);
    at[1] = (char)('0' + n % 10);
    return at + 2;
}

static void format(char *at, const struct civil *c)
{
    static const char days[][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    at = put(at, days[c->weekday], 3);
    at = put(at, ", ", 2);
    at = put_two(at, c->day);
    at = put(at, " ", 1);
    at = put(at, months[c->month - 1], 3);
    at = put(at, " ", 1);
    at = put_two(at, c->year / 100);
    at = put_two(at, c->year % 100);
    at = put(at, " ", 1);
    at = put_two(at, c->hour);
    at = put(at, ":", 1);
    at = put_two(at, c->minute);
    at = put(at, ":", 1);
    at = put_two(at, c->second);
    put(at, " GMT", 4);
}

struct view date_text(struct date *d, double wall_s)
{
    uint64_t second = wall_s > 0 ? (uint64_t)wall_s : 0;
    if (second != d->second || d->text[0] == '\0') {
        struct civil c = date_civil(second);
        format(d->text, &c);
        d->second = second;
    }
    return (struct view){d->text, DATE_BYTES};
}
