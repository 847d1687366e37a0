#include "controlplane/config/json_schema.h"

#include <string.h>

#include "controlplane/config/schema.h"
#include "proto/base/log.h"

#define TEXTS "[\"string\", \"number\", \"boolean\"]" /* any scalar can be read as text */

/* A literal of JSON; what is written here is well-formed. */
static json_t *literal(const char *text)
{
    json_error_t err;
    json_t *t = json_loads(text, JSON_DECODE_ANY, &err);
    if (!t)
        log_fatal("json_schema", "%s in %s", err.text, text);
    return t;
}

static json_t *bounded(const char *type, const struct key *k)
{
    json_t *t = json_pack("{s:s}", "type", type);
    /* What the predecessor took for "not set" is taken still. */
    bool zero = k->type == VALUE_SECONDS && (k->flags & KEY_GO) && k->min > 0;
    json_object_set_new(t, "minimum", json_real(zero ? 0 : k->min));
    if (k->max < 0x1p53)
        json_object_set_new(t, "maximum", json_real(k->max));
    return t;
}

static json_t *words_of(const struct key *k)
{
    json_t *list = json_array();
    for (size_t i = 0; k->words && k->words[i]; i++)
        json_array_append_new(list, json_string(k->words[i]));
    return json_pack("{s:o}", "enum", list);
}

/* Texts are checked in more ways when they are loaded; this is what can be said of them here. */
static json_t *text(const char *pattern)
{
    json_t *t = literal("{\"type\": " TEXTS "}");
    if (pattern)
        json_object_set_new(t, "pattern", json_string(pattern));
    return t;
}

static json_t *list_of(json_t *items)
{
    return json_pack("{s:s, s:o}", "type", "array", "items", items);
}

/* One flat list of alternatives, which editors can tell about. */
static json_t *either(json_t *a, json_t *b)
{
    json_t *list = json_object_get(a, "anyOf");
    if (!list)
        return json_pack("{s:[o, o]}", "anyOf", a, b);
    json_array_append_new(list, b);
    return a;
}

/* ${VAR} may stand for anything. */
static json_t *or_variable(json_t *t)
{
    return either(t, literal("{\"type\": \"string\", \"pattern\": \"\\\\$\\\\{\"}"));
}

/* A key without value stands for its default. An object or list then is one, or null: so that what
 * is wrong within it is still told. */
static json_t *or_null(json_t *t)
{
    const char *type = json_string_value(json_object_get(t, "type"));
    if (!type)
        return either(t, literal("{\"type\": \"null\"}"));
    json_object_set_new(t, "type", json_pack("[s, s]", type, "null"));
    return t;
}

static json_t *status(void)
{
    return literal(
        "{\"anyOf\": [{\"type\": \"integer\", \"minimum\": 100, \"maximum\": 599}, "
        "{\"type\": \"string\", \"pattern\": \"^[1-5][0-9][0-9] *(- *[1-5][0-9][0-9])?$\"}]}");
}

static json_t *value_of(const struct key *k)
{
    switch (k->type) {
    case VALUE_BOOL:
        return literal("{\"anyOf\": [{\"type\": \"boolean\"}, {\"enum\": [\"yes\", \"no\", \"on\", "
                       "\"off\"]}]}");
    case VALUE_INT:
        return k->words ? either(bounded("integer", k), words_of(k)) : bounded("integer", k);
    case VALUE_SIZE:
        return either(bounded("integer", k),
                      literal("{\"type\": \"string\", \"pattern\": \"^[0-9.]+ *([KMG]iB)?$\"}"));
    case VALUE_SECONDS:
    case VALUE_FLOAT:
        return bounded("number", k);
    case VALUE_FLOATS:
        return list_of(or_variable(bounded("number", k)));
    case VALUE_WORD:
        return words_of(k);
    case VALUE_PREFIX:
        return text("^/");
    case VALUE_PATH:
    case VALUE_FILE_PATH:
        return text("^(/|$)");
    case VALUE_LOG_TARGET:
        return text("^(/.|stdout$|stderr$|off$)");
    case VALUE_BACKEND_URL:
        return text("^http://");
    case VALUE_REDIS_URL:
        return text("^(redis://|unix://|$)");
    case VALUE_LISTENS:
        return either(text(NULL), list_of(text(NULL)));
    case VALUE_METHODS:
    case VALUE_CIDRS:
    case VALUE_HEADER_NAMES:
        return list_of(text(NULL));
    case VALUE_STATUSES:
        return either(status(), list_of(or_variable(status())));
    case VALUE_HEADER_FIELDS:
        return literal(
            "{\"type\": \"object\", \"additionalProperties\": {\"anyOf\": [{\"type\": " TEXTS
            "}, {\"type\": \"array\", \"items\": {\"type\": " TEXTS "}}]}}");
    default:
        return text(NULL);
    }
}

/* As it would be written: "30" is a number, "[]" a list, ":8080" a text. */
static json_t *preset_of(const struct key *k)
{
    json_t *t = json_loads(k->preset, JSON_DECODE_ANY, NULL);
    return t && !json_is_null(t) ? t : json_string(k->preset);
}

static json_t *section_of(const struct section *s);

static json_t *key_of(const struct section_key *k)
{
    json_t *t;
    if (k->section && k->key->type == VALUE_SECTION_LIST)
        t = list_of(section_of(k->section));
    else if (k->section)
        t = section_of(k->section);
    else
        t = value_of(k->key);
    if (!(k->key->flags & KEY_REQUIRED))
        t = or_null(t);
    if (!k->section)
        t = or_variable(t);
    json_object_set_new(t, "description", json_string(k->key->doc));
    if (k->key->preset && !(k->key->flags & KEY_SECRET))
        json_object_set_new(t, "default", preset_of(k->key));
    return t;
}

static json_t *section_of(const struct section *s)
{
    json_t *properties = json_object(), *required = json_array();
    for (size_t i = 0; i < s->count; i++) {
        const struct section_key *k = &s->keys[i];
        json_object_setn_new(properties, k->name.at, k->name.len, key_of(k));
        if (k->key->flags & KEY_REQUIRED)
            json_array_append_new(required, json_stringn(k->name.at, k->name.len));
    }
    return json_pack("{s:s, s:o, s:o, s:b}", "type", "object", "properties", properties, "required",
                     required, "additionalProperties", 0);
}

json_t *json_schema_document(void)
{
    struct arena *a = arena_new(16 * 1024);
    json_t *t = section_of(schema_open(a));
    json_object_set_new(t, "$schema", json_string("http://json-schema.org/draft-07/schema#"));
    json_object_set_new(t, "title", json_string("gateway-pro configuration"));
    arena_free(&a);
    return t;
}
