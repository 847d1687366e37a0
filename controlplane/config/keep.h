/* keep: texts of a configuration in the form in which they are kept: names, hosts, paths,
 * addresses, header names, methods. Each is checked for what it is, with its row of the schema for
 * the words of the message. */
#pragma once

#include "controlplane/config/value.h"

/* The text to keep: the node's own or one in the reader's arena; or NULL when it was refused and
 * reported. */
typedef const char *keep_fn(const struct value_reader *r, const struct key *k,
                            const struct node *n);

keep_fn keep_token;     /* no spaces, no control characters */
keep_fn keep_name;      /* of a route */
keep_fn keep_host;      /* lower case; a pattern where the key takes one */
keep_fn keep_path;      /* a prefix loses its slash at the end; a check's path may carry a query */
keep_fn keep_file_path; /* or a word for the access log, where the key takes one */
keep_fn keep_address;   /* "localhost:80" becomes "127.0.0.1:80" */
keep_fn keep_backend_url; /* as it is written */
keep_fn keep_redis_url;   /* or "" */
keep_fn keep_cidr;        /* without host bits; a single address gets its length */
keep_fn keep_method;      /* upper case */
keep_fn keep_header_name;
keep_fn keep_edited_name; /* of a header that may be edited */

/* The value of a header that is edited, without spaces at its ends. */
const char *keep_header_value(const struct value_reader *r, const struct node *n);
