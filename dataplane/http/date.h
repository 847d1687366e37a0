/* date: the present second as HTTP writes it, "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110 5.6.7). One
 * worker's, who formats it once a second and copies it otherwise. */
#pragma once

#include "proto/base/str.h"

#define DATE_BYTES 29

struct date {
    uint64_t second; /* that `text` is of */
    char text[DATE_BYTES];
};

/* Good until the next call; zeroes are a good start. */
struct view date_text(struct date *d, double wall_s);

struct civil {
    unsigned year, month, day; /* from 1 on */
    unsigned weekday;          /* 0 = Sunday */
    unsigned hour, minute, second;
};

/* A second since 1970 in UTC, up to the end of 9999. Not gmtime_r(), which takes the time zone's
 * lock. Pure. */
struct civil date_civil(uint64_t second);
