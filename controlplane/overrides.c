#include "controlplane/overrides.h"

#include <ev.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "controlplane/files.h"
#include "proto/base/addr.h"
#include "proto/base/log.h"

#define FILE_VERSION 1
#define FILE_MAX_BYTES (8u * 1024 * 1024)
#define WEIGHT_MAX 1000

static void *must(void *memory)
{
    if (!memory)
        log_fatal("overrides", "out of memory");
    return memory;
}

/* ---- in memory ---- */

/* Owned by the caller. */
static char *key_of(const char *address, const char *route, size_t *len)
{
    size_t address_len = strlen(address) + 1, route_len = strlen(route) + 1;
    char *key = must(malloc(address_len + route_len));
    memcpy(key, address, address_len);
    memcpy(key + address_len, route, route_len);
    *len = address_len + route_len;
    return key;
}

static void override_free(struct override *one)
{
    free(one->key);
    free(one);
}

static struct override *find(const struct overrides *o, const char *address, const char *route)
{
    size_t len;
    if (o->by.count == 0)
        return NULL;
    char *key = key_of(address, route, &len);
    struct override *found = table_get(&o->by, (struct view){key, len});
    free(key);
    return found;
}

const struct override *overrides_find(const struct overrides *o, const char *address,
                                      const char *route)
{
    return find(o, address, route);
}

static struct override *add(struct overrides *o, const char *address, const char *route)
{
    struct override *one = must(calloc(1, sizeof(*one)));
    one->key = key_of(address, route, &one->key_len);
    one->address = one->key;
    one->route = one->key + strlen(address) + 1;
    table_add(&o->by, (struct view){one->key, one->key_len}, one);
    return one;
}

int overrides_set(struct overrides *o, const char *address, const char *route, bool draining,
                  uint32_t weight, struct err *err)
{
    struct override *one = find(o, address, route);
    if (!draining && weight == 0) {
        if (one) {
            table_remove(&o->by, (struct view){one->key, one->key_len});
            override_free(one);
        }
        return 0;
    }
    if (!one && o->by.count >= OVERRIDES_MAX)
        return err_set(err, "there are %u overrides already: undo some first", OVERRIDES_MAX);
    if (!one)
        one = add(o, address, route);
    one->draining = draining;
    one->weight = weight;
    one->since = ev_time();
    return 0;
}

static int by_key(const void *a, const void *b)
{
    const struct override *x = *(struct override *const *)a, *y = *(struct override *const *)b;
    int order = strcmp(x->address, y->address);
    return order != 0 ? order : strcmp(x->route, y->route);
}

const struct override **overrides_sorted(const struct overrides *o, size_t *count)
{
    const struct override **all = must(malloc((o->by.count + 1) * sizeof(struct override *)));
    *count = 0;
    table_each(slot, &o->by) all[(*count)++] = slot->item;
    qsort(all, *count, sizeof(struct override *), by_key);
    return all;
}

/* ---- on disk ---- */

int overrides_save(const struct overrides *o, struct err *err)
{
    size_t count;
    if (!o->path)
        return 0;
    const struct override **all = overrides_sorted(o, &count);
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, json_pack("{s:s, s:s, s:b, s:I, s:f}", "address",
                                              all[i]->address, "route", all[i]->route, "draining",
                                              (int)all[i]->draining, "weight",
                                              (json_int_t)all[i]->weight, "since", all[i]->since));
    json_t *document = json_pack("{s:i, s:o}", "version", FILE_VERSION, "overrides", list);
    char *text = must(json_dumps(document, JSON_INDENT(2)));
    int result = files_write(o->path, view_of(text), err);
    free(text);
    json_decref(document);
    free(all);
    return result;
}

static int take_one(struct overrides *o, const json_t *one, struct err *err)
{
    const char *address, *route;
    int draining;
    json_int_t weight;
    double since;
    struct addr parsed;
    if (json_unpack((json_t *)one, "{s:s, s:s, s:b, s:I, s:F}", "address", &address, "route",
                    &route, "draining", &draining, "weight", &weight, "since", &since) < 0 ||
        addr_parse(&parsed, address, NULL) < 0 || weight < 0 || weight > WEIGHT_MAX)
        return err_set(err, "an entry is not one of an address");
    if (find(o, address, route))
        return err_set(err, "%s is in it twice", address);
    if (overrides_set(o, address, route, draining != 0, (uint32_t)weight, err) < 0)
        return -1;
    struct override *taken = find(o, address, route);
    if (taken)
        taken->since = since;
    return 0;
}

static int take_document(struct overrides *o, const json_t *document, struct err *err)
{
    const json_t *list = json_object_get(document, "overrides");
    if (json_integer_value(json_object_get(document, "version")) != FILE_VERSION ||
        !json_is_array(list))
        return err_set(err, "it is not a list of overrides in version %d", FILE_VERSION);
    for (size_t i = 0; i < json_array_size(list); i++)
        if (take_one(o, json_array_get(list, i), err) < 0)
            return -1;
    return 0;
}

static void forget_all(struct overrides *o)
{
    table_each(slot, &o->by) override_free(slot->item);
    table_clear(&o->by);
}

static void put_aside(struct overrides *o, const char *why)
{
    char aside[4200];
    snprintf(aside, sizeof(aside), "%s.broken", o->path);
    bool is_aside = rename(o->path, aside) == 0;
    log_error("overrides", "%s is not used: %s; no endpoint is overridden%s%s", o->path, why,
              is_aside ? "; it was renamed to " : "", is_aside ? aside : "");
    forget_all(o);
}

static void load(struct overrides *o)
{
    size_t len;
    struct err err;
    json_error_t problem;
    if (access(o->path, F_OK) < 0)
        return;
    char *text = files_read(o->path, FILE_MAX_BYTES, &len, &err);
    if (!text) {
        put_aside(o, err.text);
        return;
    }
    json_t *document = json_loadb(text, len, JSON_REJECT_DUPLICATES, &problem);
    if (!document)
        put_aside(o, problem.text);
    else if (take_document(o, document, &err) < 0)
        put_aside(o, err.text);
    else if (o->by.count > 0)
        log_info("overrides", "%zu endpoint override%s from before the start in effect",
                 o->by.count, o->by.count == 1 ? "" : "s");
    json_decref(document);
    free(text);
}

void overrides_init(struct overrides *o, const char *state_dir)
{
    memset(o, 0, sizeof(*o));
    table_init(&o->by);
    if (!state_dir)
        return;
    if (asprintf(&o->path, "%s/overrides.json", state_dir) < 0)
        log_fatal("overrides", "out of memory");
    load(o);
}

void overrides_fini(struct overrides *o)
{
    forget_all(o);
    table_fini(&o->by);
    free(o->path);
    o->path = NULL;
}
