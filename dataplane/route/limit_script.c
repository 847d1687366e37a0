/* Hot path: no allocation, no system call. */
#include "dataplane/route/limit_script.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* The cells of a window there, besides the present one. Together with four other fields they are
 * few enough for Redis' compact form of a hash. */
#define CELLS 120
#define NUMBER_BYTES 32
#define GATEWAYS_KEY "gwp:gateways"

/* Each answers {allowed, remaining, us until one passes, us until all is back}. Redis' clock may be
 * set back: then nothing is given back for a while, but nobody waits for it to catch up. */
static const char bucket[] =
    "local t=redis.call('TIME') local now=t[1]*1e6+t[2]\n"
    "local rate,size=tonumber(ARGV[1]),tonumber(ARGV[2])\n"
    "local spent,clock=0,now\n"
    "local v=redis.call('GET',KEYS[1])\n"
    "if v and #v==16 then spent,clock=struct.unpack('>dd',v) end\n"
    "if now>clock then spent=math.max(0,spent-(now-clock)*rate) end\n"
    "local function us(n) return math.min(math.ceil(n/rate),9e15) end\n"
    "if spent+1>size then return {0,0,us(spent+1-size),us(spent)} end\n"
    "spent=spent+1\n"
    "redis.call('SET',KEYS[1],struct.pack('>dd',spent,now),'PX',math.ceil(us(spent)/1000)+1000)\n"
    "return {1,math.floor(size-spent),0,us(spent)}\n";

/* c: the newest cell, s: the sum of all, r: the cell in which there is room again under quota q. */
static const char window[] =
    "local t=redis.call('TIME') local now=t[1]*1e6+t[2]\n"
    "local quota,len,cells=tonumber(ARGV[1]),tonumber(ARGV[2]),tonumber(ARGV[3])\n"
    "local cell=math.floor(now/len)\n"
    "local h=redis.call('HMGET',KEYS[1],'c','s','r','q')\n"
    "local last,sum=tonumber(h[1]),tonumber(h[2]) or 0\n"
    "if last and cell<last and last-cell<=cells then cell=last end\n"
    "local function each(f) local a=redis.call('HGETALL',KEYS[1])\n"
    " for i=1,#a,2 do local n=tonumber(a[i]) if n then f(n,tonumber(a[i+1]),a[i]) end end end\n"
    "if last and cell~=last then\n"
    " local gone={}\n"
    " each(function(n,count,name) if n<cell-cells or n>cell then\n"
    "  gone[#gone+1]=name sum=sum-count end end)\n"
    " if #gone>0 then redis.call('HDEL',KEYS[1],unpack(gone)) end\n"
    " redis.call('HSET',KEYS[1],'c',string.format('%.0f',cell),'s',string.format('%.0f',sum))\n"
    "end\n"
    "local function till(n) return math.max(1,math.ceil(n*len-now)+1) end\n"
    "local over=till(cell+cells+1)\n"
    "if sum<quota then\n"
    " redis.call('HINCRBY',KEYS[1],string.format('%.0f',cell),1)\n"
    " redis.call('HSET',KEYS[1],'c',string.format('%.0f',cell),'s',string.format('%.0f',sum+1))\n"
    " if cell~=last then redis.call('PEXPIRE',KEYS[1],math.ceil((cells+2)*len/1000)+1000) end\n"
    " return {1,quota-sum-1,0,over}\n"
    "end\n"
    "local room=tonumber(h[3])\n"
    "if not room or room<=cell or room>cell+cells+1 or h[4]~=ARGV[1] then\n"
    " local counts,excess={},sum-quota+1\n"
    " each(function(n,count) counts[n]=count end)\n"
    " room=cell-cells-1\n"
    " repeat room=room+1 excess=excess-(counts[room] or 0) until excess<=0 or room>=cell\n"
    " room=room+cells+1\n"
    " redis.call('HSET',KEYS[1],'r',string.format('%.0f',room),'q',ARGV[1])\n"
    "end\n"
    "return {0,0,till(room),over}\n";

/* The list of gateways begins anew when nobody is on it. Those of the future are of a clock that
 * has been set back. */
static const char greeting[] =
    "local t=redis.call('TIME') local now=t[1]*1000+math.floor(t[2]/1000)\n"
    "redis.call('ZREMRANGEBYSCORE',KEYS[1],'-inf',now-ARGV[3])\n"
    "redis.call('ZREMRANGEBYSCORE',KEYS[1],string.format('(%.0f',now),'+inf')\n"
    "local since=tonumber(redis.call('GET',KEYS[3]) or '')\n"
    "if not since or since>now or redis.call('ZCARD',KEYS[1])==0 then since=now end\n"
    "redis.call('SET',KEYS[3],since,'PX',86400000)\n"
    "redis.call('ZADD',KEYS[1],now,ARGV[1])\n"
    "redis.call('PEXPIRE',KEYS[1],ARGV[3])\n"
    "local s=redis.call('GET',KEYS[2])\n"
    "if not s or #s~=#ARGV[2] then s=ARGV[2] end\n"
    "redis.call('SET',KEYS[2],s,'PX',86400000)\n"
    "return {redis.call('ZCARD',KEYS[1]),s,since,now-since}\n";

static const char sweep[] = "local r=redis.call('SCAN',ARGV[1],'MATCH',ARGV[2],'COUNT',1000)\n"
                            "for _,k in ipairs(r[2]) do redis.call('UNLINK',k) end\n"
                            "return {r[1],#r[2]}\n";

static const struct view texts[] = {
    [SCRIPT_BUCKET] = {bucket, sizeof(bucket) - 1},
    [SCRIPT_WINDOW] = {window, sizeof(window) - 1},
};

/* ---- commands ---- */

static void put(struct command *c, const char *bytes, size_t len)
{
    assert(c->len + len <= c->room);
    memcpy(c->at + c->len, bytes, len);
    c->len += len;
}

static void put_count(struct command *c, char mark, size_t n)
{
    char text[NUMBER_BYTES], *at = text + sizeof(text);
    *--at = '\n';
    *--at = '\r';
    do
        *--at = (char)('0' + n % 10);
    while ((n /= 10) > 0);
    *--at = mark;
    put(c, at, (size_t)(text + sizeof(text) - at));
}

void command_begin(struct command *c, unsigned parts)
{
    put_count(c, '*', parts);
}

void command_part(struct command *c, struct view part)
{
    put_count(c, '$', part.len);
    put(c, part.at, part.len);
    put(c, "\r\n", 2);
}

static void put_text(struct command *c, const char *text)
{
    command_part(c, view_of(text));
}

static void put_number(struct command *c, double n)
{
    char text[NUMBER_BYTES];
    snprintf(text, sizeof(text), "%.17g", n);
    put_text(c, text);
}

/* ---- scripts ---- */

size_t script_prefix(char out[SCRIPT_PREFIX_BYTES], const char *route, const struct limit_policy *p)
{
    static const char kinds[] = {
        [LIMITER_BY_IP] = 'i', [LIMITER_BY_USER] = 'u', [LIMITER_BY_API_KEY] = 'k'};
    char way[NUMBER_BYTES] = "b";
    if (p->algorithm == LIMITER_WINDOW)
        snprintf(way, sizeof(way), "w%u", p->window_ms);
    return (size_t)snprintf(out, SCRIPT_PREFIX_BYTES, "gwp:%016llx:%s:%c:",
                            (unsigned long long)XXH3_64bits(route, strlen(route)), way,
                            kinds[p->key_by]);
}

void script_write_load(struct command *c, enum script which)
{
    command_begin(c, 3);
    put_text(c, "SCRIPT");
    put_text(c, "LOAD");
    command_part(c, texts[which]);
}

static void put_key(struct command *c, struct view prefix, struct digest128 key)
{
    static const char digits[] = "0123456789abcdef";
    char text[SCRIPT_PREFIX_BYTES + 32];
    size_t len = prefix.len;
    memcpy(text, prefix.at, len);
    for (unsigned i = 0; i < 32; i++)
        text[len++] = digits[(i < 16 ? key.high : key.low) >> (60 - i % 16 * 4) & 15];
    command_part(c, (struct view){text, len});
}

void script_write_decision(struct command *c, const char *sha, const struct limit_policy *p,
                           struct digest128 key)
{
    bool is_bucket = p->algorithm == LIMITER_BUCKET;
    command_begin(c, is_bucket ? 6 : 7);
    put_text(c, sha ? "EVALSHA" : "EVAL");
    command_part(c, sha ? (struct view){sha, SCRIPT_SHA_BYTES}
                        : texts[is_bucket ? SCRIPT_BUCKET : SCRIPT_WINDOW]);
    put_text(c, "1");
    put_key(c, p->redis_prefix, key);
    if (is_bucket) {
        put_number(c, p->rate / 1e6);
        put_number(c, p->burst);
    } else {
        put_number(c, (double)p->quota);
        put_number(c, p->window_ms * 1e3 / CELLS);
        put_number(c, CELLS);
    }
}

void script_write_forget(struct command *c, struct view prefix, struct digest128 key)
{
    command_begin(c, 2);
    put_text(c, "UNLINK");
    put_key(c, prefix, key);
}

void script_write_sweep(struct command *c, const char *route, const char *cursor)
{
    char pattern[SCRIPT_PREFIX_BYTES];
    snprintf(pattern, sizeof(pattern), "gwp:%016llx:*",
             (unsigned long long)XXH3_64bits(route, strlen(route)));
    command_begin(c, 5);
    put_text(c, "EVAL");
    command_part(c, (struct view){sweep, sizeof(sweep) - 1});
    put_text(c, "0");
    put_text(c, cursor);
    put_text(c, pattern);
}

void script_write_greeting(struct command *c, const char *gateway,
                           const char secret[SCRIPT_SECRET_BYTES])
{
    command_begin(c, 9);
    put_text(c, "EVAL");
    command_part(c, (struct view){greeting, sizeof(greeting) - 1});
    put_text(c, "3");
    put_text(c, GATEWAYS_KEY);
    put_text(c, "gwp:secret");
    put_text(c, "gwp:since");
    put_text(c, gateway);
    command_part(c, (struct view){secret, SCRIPT_SECRET_BYTES});
    put_number(c, SCRIPT_GATEWAY_MS);
}

void script_write_farewell(struct command *c, const char *gateway)
{
    command_begin(c, 3);
    put_text(c, "ZREM");
    put_text(c, GATEWAYS_KEY);
    put_text(c, gateway);
}
