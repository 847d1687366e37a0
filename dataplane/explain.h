/* explain: what would become of a request: the same functions that decide about it on its way
 * (http/decide.h, limiter_peek(), balancer_foresee(), http/forward.h), asked on the control thread.
 * Nothing is counted, taken, remembered or sent.
 *
 * Live, for an Explain message, by the snapshot in force; or once, for `gwp-dataplane --explain`:
 * then snapshot and question come on standard input, each as its length (32 bits, of this machine)
 * and its packed message, and the packed Explanation goes to standard output. That is how gwpctl
 * asks about a file: the data plane's code answers without being linked into it. */
#pragma once

#include "dataplane/state/snapshot.h"

/* `answer` is borrowed for the call. */
typedef void explain_fn(void *owner, const Gwp__Explanation *answer);

void explain(const struct snapshot *s, const Gwp__Explain *question, explain_fn *answer,
             void *owner);

/* For --explain; the program's exit status. */
int explain_once(void);
