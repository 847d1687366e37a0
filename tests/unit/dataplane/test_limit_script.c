/* The scripts, run by a real redis-server with a time of the test's own, against models. */
#include <criterion/criterion.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dataplane/route/limit_script.h"
#include "limits.h"

#define CELLS 120 /* of a window there */

static char folder[] = "/tmp/gwp-script-XXXXXX";
static char socket_path[64];
static pid_t server;
static redisContext *redis;

static void start(void)
{
    cr_assert(mkdtemp(folder));
    snprintf(socket_path, sizeof(socket_path), "%s/redis.sock", folder);
    server = fork();
    if (server == 0) {
        if (!freopen("/dev/null", "w", stdout))
            _exit(1);
        execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", socket_path, "--save",
               "", "--dir", folder, NULL);
        _exit(127);
    }
    for (unsigned tries = 0; tries < 1000; tries++) {
        redis = redisConnectUnix(socket_path);
        if (redis && !redis->err)
            return;
        redisFree(redis);
        usleep(10000);
    }
    cr_assert_fail("redis-server does not answer");
}

static void stop(void)
{
    redisFree(redis);
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    unlink(socket_path);
    rmdir(folder);
}

TestSuite(limit_script, .init = start, .fini = stop, .timeout = 120);

/* ---- asking at a time ---- */

#define PARTS 12

/* What was written, taken apart again. */
static size_t parts_of(const struct command *c, struct view parts[PARTS])
{
    char *at = c->at + 1;
    size_t count = strtoul(at, &at, 10);
    cr_assert_leq(count, PARTS);
    for (size_t i = 0; i < count; i++) {
        parts[i].len = strtoul(strchr(at, '$') + 1, &at, 10);
        parts[i].at = at + 2;
        at += 2 + parts[i].len + 2;
    }
    cr_assert_eq(at, c->at + c->len, "every byte is accounted for");
    return count;
}

/* The script with "now" from its last two arguments. */
static struct view at_our_time(struct view script, char out[SCRIPT_COMMAND_BYTES])
{
    static const char asks[] = "redis.call('TIME')", is_told[] = "{ARGV[#ARGV-1],ARGV[#ARGV]}";
    const char *at = memmem(script.at, script.len, asks, strlen(asks));
    cr_assert_not_null(at);
    int len =
        snprintf(out, SCRIPT_COMMAND_BYTES, "%.*s%s%.*s", (int)(at - script.at), script.at, is_told,
                 (int)(script.at + script.len - at - (ssize_t)strlen(asks)), at + strlen(asks));
    return (struct view){out, (size_t)len};
}

/* What it is answered with, at that time. */
static redisReply *run_at(const struct command *command, uint64_t now_us)
{
    char text[SCRIPT_COMMAND_BYTES], seconds[32], us[32];
    struct view parts[PARTS];
    const char *argv[PARTS + 2];
    size_t lens[PARTS + 2], count = parts_of(command, parts);
    parts[1] = at_our_time(parts[1], text);
    snprintf(seconds, sizeof(seconds), "%llu", (unsigned long long)(now_us / 1000000));
    snprintf(us, sizeof(us), "%llu", (unsigned long long)(now_us % 1000000));
    parts[count++] = view_of(seconds);
    parts[count++] = view_of(us);
    for (size_t i = 0; i < count; i++) {
        argv[i] = parts[i].at;
        lens[i] = parts[i].len;
    }
    redisReply *r = redisCommandArgv(redis, (int)count, argv, lens);
    cr_assert(r && r->type == REDIS_REPLY_ARRAY && r->elements == 4, "%s", r ? r->str : "nothing");
    return r;
}

static struct limit_verdict ask(const struct limit_policy *p, uint64_t key, uint64_t now_us)
{
    char room[SCRIPT_COMMAND_BYTES];
    struct command command = command_in(room, sizeof(room));
    script_write_decision(&command, NULL, p, (struct digest128){key, key});
    redisReply *r = run_at(&command, now_us);
    struct limit_verdict v = {.allowed = r->element[0]->integer == 1,
                              .remaining = (uint64_t)r->element[1]->integer,
                              .retry_ns = (uint64_t)r->element[2]->integer * 1000,
                              .reset_ns = (uint64_t)r->element[3]->integer * 1000};
    freeReplyObject(r);
    return v;
}

struct welcome {
    long long gateways, since_ms, age_ms;
};

static struct welcome greet(const char *gateway, uint64_t now_ms)
{
    char room[SCRIPT_COMMAND_BYTES];
    struct command command = command_in(room, sizeof(room));
    script_write_greeting(&command, gateway, "0123456789abcdef0123456789abcdef");
    redisReply *r = run_at(&command, now_ms * 1000);
    struct welcome w = {r->element[0]->integer, r->element[2]->integer, r->element[3]->integer};
    cr_expect_eq(r->element[1]->len, SCRIPT_SECRET_BYTES);
    freeReplyObject(r);
    return w;
}

static struct limit_policy with_prefix(struct limit_policy p)
{
    static char prefixes[4][SCRIPT_PREFIX_BYTES];
    static unsigned used;
    char *prefix = prefixes[used++ % COUNT_OF(prefixes)];
    p.redis_prefix = (struct view){prefix, script_prefix(prefix, "users", &p)};
    return p;
}

static uint64_t start_us(void)
{
    return 1700000000000000ull + 123456;
}

/* ---- buckets ---- */

static void compare_buckets(uint64_t seed)
{
    uint64_t random = seed, now = start_us(), since = now, passed = 0;
    long double missing = 0;
    struct limit_policy p = with_prefix(bucket_policy(1, 1));
    for (int i = 0; i < 1500; i++) {
        if (i % 300 == 0) {
            static const double rates[] = {0.01, 0.5, 3, 1000, 33333};
            p = with_prefix(bucket_policy(rates[random_below(&random, COUNT_OF(rates))],
                                          (uint32_t)(1 + random_below(&random, 20))));
        }
        now += (uint64_t)((double)random_below(&random, 3000) / 1000 * 1e6 / p.rate);
        long double refilled = (long double)(now - since) * p.rate / 1e6L;
        long double left = refilled > missing ? 0 : missing - refilled, after = left + 1 - p.burst;
        struct limit_verdict v = ask(&p, seed, now);
        if (after < -1e-5L || after > 1e-5L)
            cr_assert_eq(v.allowed, after < 0, "seed %llu, request %d: %Lg missing of %u",
                         (unsigned long long)seed, i, left, p.burst);
        if (v.allowed) {
            passed++;
            missing = left + 1;
            since = now;
            cr_assert_leq((double)v.remaining, p.burst - missing + 1e-5L);
        } else {
            cr_assert_leq((double)v.retry_ns, (double)(after / p.rate) * 1e9 + 2000);
        }
    }
    cr_assert_gt(passed, 100);
}

Test(limit_script, buckets_decide_as_the_model_does)
{
    for (uint64_t seed = 1; seed <= 6; seed++)
        compare_buckets(seed);
}

/* ---- windows ---- */

static uint64_t within(const uint64_t *at, size_t count, uint64_t from)
{
    size_t n = 0;
    while (n < count && at[count - 1 - n] >= from)
        n++;
    return n;
}

static void compare_windows(uint64_t seed, uint32_t window_ms, double base)
{
    enum { REQUESTS = 1500 };
    static uint64_t passed[REQUESTS];
    uint64_t random = seed, now = start_us(), window_us = window_ms * 1000ull;
    struct limit_policy p = with_prefix(window_policy(base, window_ms));
    size_t count = 0;
    for (int i = 0; i < REQUESTS; i++) {
        if (i % 300 == 299)
            p = with_prefix(
                window_policy(base * (0.3 + (double)random_below(&random, 150) / 100), window_ms));
        now += (uint64_t)((double)random_below(&random, 1500) / 1000 / p.rate * 1e6);
        if (random_below(&random, 400) == 0)
            now += random_below(&random, 3 * window_us);
        struct limit_verdict v = ask(&p, seed, now);
        if (v.allowed) {
            passed[count++] = now;
            cr_assert_leq(within(passed, count, now - window_us), p.quota);
            continue;
        }
        uint64_t cell_us = window_us / CELLS + 1;
        cr_assert_geq(within(passed, count, now - window_us - cell_us), p.quota, "request %d", i);
        /* Told when to come again: then there is room, and no cell earlier. */
        struct limit_policy same = p;
        if (random_below(&random, 10) == 0) {
            now += v.retry_ns / 1000;
            cr_assert(ask(&same, seed, now).allowed, "as told, request %d", i);
            passed[count++] = now;
        }
    }
    cr_assert_gt(count, 100);
}

Test(limit_script, windows_hold_the_quota_and_refuse_with_cause)
{
    for (uint64_t seed = 1; seed <= 3; seed++) {
        compare_windows(seed, 1000, 7);
        compare_windows(seed + 10, 1000, 100);
        compare_windows(seed + 20, 60000, 1);
    }
}

Test(limit_script, saturated_window_gets_99_percent)
{
    struct limit_policy p = with_prefix(window_policy(200, 1000));
    uint64_t count = 0;
    for (unsigned i = 0; i < 4000; i++) /* ten seconds at twice the rate */
        count += ask(&p, 1, start_us() + i * 2500).allowed;
    cr_expect_leq(count, 2000);
    cr_expect_geq(count, 1980, "%llu", (unsigned long long)count);
}

/* ---- what else ---- */

Test(limit_script, clock_that_is_set_back_blocks_nobody_for_long)
{
    struct limit_policy bucket = with_prefix(bucket_policy(1, 2)),
                        window = with_prefix(window_policy(2, 1000));
    uint64_t hour = 3600000000ull;
    for (unsigned i = 0; i < 2; i++) {
        cr_assert(ask(&bucket, 1, start_us()).allowed);
        cr_assert(ask(&window, 1, start_us()).allowed);
    }
    cr_expect_not(ask(&bucket, 1, start_us() - hour).allowed);
    struct limit_verdict v = ask(&window, 1, start_us() - hour);
    cr_expect(v.allowed, "a window of the future is over");
    v = ask(&bucket, 1, start_us() - hour);
    cr_expect_leq(v.retry_ns, SECOND + 2000);
}

Test(limit_script, state_of_another_kind_does_no_harm)
{
    struct limit_policy p = with_prefix(bucket_policy(1, 2));
    redisReply *r = redisCommand(redis, "SET %b%s garbage", p.redis_prefix.at, p.redis_prefix.len,
                                 "00000000000000010000000000000001");
    cr_assert_eq(r->type, REDIS_REPLY_STATUS);
    freeReplyObject(r);
    cr_expect_eq(ask(&p, 1, start_us()).remaining, 1);
}

Test(limit_script, keys_expire_when_they_say_nothing)
{
    struct limit_policy bucket = with_prefix(bucket_policy(0.5, 4)),
                        window = with_prefix(window_policy(2, 7000));
    (void)ask(&bucket, 1, start_us());
    (void)ask(&window, 1, start_us());
    const struct limit_policy *policies[] = {&bucket, &window};
    for (size_t i = 0; i < COUNT_OF(policies); i++) {
        redisReply *r =
            redisCommand(redis, "PTTL %b%s", policies[i]->redis_prefix.at,
                         policies[i]->redis_prefix.len, "00000000000000010000000000000001");
        cr_assert_eq(r->type, REDIS_REPLY_INTEGER);
        cr_expect_leq(r->integer, i == 0 ? 3000 : 7000 + 2 * 7000 / CELLS + 1001);
        cr_expect_geq(r->integer, i == 0 ? 2000 : 7000);
        freeReplyObject(r);
    }
}

Test(limit_script, window_stays_small)
{
    struct limit_policy p = with_prefix(window_policy(1000000, 1000));
    for (unsigned i = 0; i < 3000; i++)
        (void)ask(&p, 1, start_us() + i * 1000);
    redisReply *r = redisCommand(redis, "HLEN %b%s", p.redis_prefix.at, p.redis_prefix.len,
                                 "00000000000000010000000000000001");
    cr_expect_leq(r->integer, CELLS + 1 + 4);
    freeReplyObject(r);
    r = redisCommand(redis, "OBJECT ENCODING %b%s", p.redis_prefix.at, p.redis_prefix.len,
                     "00000000000000010000000000000001");
    cr_expect_str_neq(r->str, "hashtable", "in its compact form");
    freeReplyObject(r);
}

Test(limit_script, extreme_policies_give_numbers_that_redis_takes)
{
    struct limit_policy p = with_prefix(bucket_policy(0.0001, 1000000000));
    cr_expect(ask(&p, 1, start_us()).allowed);
    p = with_prefix(bucket_policy(1e9, 1000000000));
    cr_expect(ask(&p, 2, start_us()).allowed);
    p = with_prefix(bucket_policy(0.0001, 1));
    cr_expect(ask(&p, 3, start_us()).allowed);
    cr_expect_not(ask(&p, 3, start_us()).allowed);
    p = with_prefix(window_policy(1e9, 24u * 3600 * 1000));
    cr_expect(ask(&p, 4, start_us()).allowed);
    p = with_prefix(window_policy(0.0001, 1));
    cr_expect(ask(&p, 5, start_us()).allowed);
    cr_expect_not(ask(&p, 5, start_us()).allowed);
}

Test(limit_script, a_list_of_gateways_says_since_when_it_is_kept)
{
    uint64_t now = 1764000000123;
    struct welcome w = greet("a", now);
    cr_expect(w.gateways == 1 && w.since_ms == (long long)now && w.age_ms == 0);
    w = greet("b", now + 400);
    cr_expect(w.gateways == 2 && w.since_ms == (long long)now && w.age_ms == 400);
    (void)greet("a", now + 3000);
    w = greet("a", now + 5401); /* b has been silent for too long */
    cr_expect(w.gateways == 1 && w.since_ms == (long long)now && w.age_ms == 5401);
    freeReplyObject(redisCommand(redis, "ZREM gwp:gateways a"));
    w = greet("b", now + 6000);
    cr_expect(w.gateways == 1 && w.since_ms == (long long)now + 6000, "there was nobody");
    freeReplyObject(redisCommand(redis, "FLUSHALL"));
    cr_expect(greet("a", now + 6500).age_ms == 0);
}

Test(limit_script, gateways_of_a_clock_that_is_set_back_or_jumps_are_forgotten)
{
    uint64_t now = 1764000000123, hour = 3600000;
    cr_expect_eq(greet("a", now).gateways, 1);
    struct welcome w = greet("b", now - hour);
    cr_expect(w.gateways == 1 && w.since_ms == (long long)(now - hour) && w.age_ms == 0);
    w = greet("a", now + hour);
    cr_expect(w.gateways == 1 && w.age_ms == 0, "b may yet come");
}
