#include <criterion/criterion.h>
#include <time.h>

#include "dataplane/http/date.h"

static struct date date;

static void is(double wall_s, const char *text)
{
    struct view v = date_text(&date, wall_s);
    cr_assert(view_equal(v, view_of(text)), "%.*s", VIEW_ARG(v));
}

Test(date, is_written_as_http_wants_it)
{
    is(0, "Thu, 01 Jan 1970 00:00:00 GMT");
    is(784111777, "Sun, 06 Nov 1994 08:49:37 GMT");
    is(784111777.999, "Sun, 06 Nov 1994 08:49:37 GMT");
    is(784111778, "Sun, 06 Nov 1994 08:49:38 GMT");
    is(1709208000, "Thu, 29 Feb 2024 12:00:00 GMT");
    is(4102444799, "Thu, 31 Dec 2099 23:59:59 GMT");
    is(253402300799, "Fri, 31 Dec 9999 23:59:59 GMT");
}

Test(date, agrees_with_the_c_library_on_every_day_of_a_century)
{
    for (time_t second = 1; second < 3155760000; second += 86399) {
        struct civil c = date_civil((uint64_t)second);
        struct tm t;
        gmtime_r(&second, &t);
        cr_assert(c.year == (unsigned)t.tm_year + 1900 && c.month == (unsigned)t.tm_mon + 1 &&
                  c.day == (unsigned)t.tm_mday && c.weekday == (unsigned)t.tm_wday);
        cr_assert(c.hour == (unsigned)t.tm_hour && c.minute == (unsigned)t.tm_min &&
                  c.second == (unsigned)t.tm_sec);
    }
}

Test(date, follows_a_clock_that_is_set_back)
{
    is(1709208000, "Thu, 29 Feb 2024 12:00:00 GMT");
    is(784111777, "Sun, 06 Nov 1994 08:49:37 GMT");
}
