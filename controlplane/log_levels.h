/* log_levels: what the programs write down in place of logging.level, as operators ordered it: of
 * the control plane itself, and of every data plane, those that connect later included. Until it is
 * ordered otherwise or the control plane ends. Owned by main.c; on the loop. */
#pragma once

#include "controlplane/session.h"
#include "proto/base/log.h"

enum log_program { PROGRAM_CONTROLPLANE, PROGRAM_DATAPLANE, PROGRAM_COUNT };

struct log_levels {
    struct sessions *sessions; /* borrowed */
    struct {
        bool is_ordered;
        enum log_level level;
    } of[PROGRAM_COUNT];
};

void log_levels_init(struct log_levels *l, struct sessions *sessions);

/* "debug", "info", "warn", "error", or "default": as configured. false: it is none of these. */
MUST_CHECK bool log_levels_order(struct log_levels *l, enum log_program program, const char *word);

/* A data plane has connected. */
void log_levels_opened(const struct log_levels *l, struct session *s);
