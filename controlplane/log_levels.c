#include "controlplane/log_levels.h"

#include <string.h>

static void tell(const struct log_levels *l, struct session *s)
{
    Gwp__LogLevel order = GWP__LOG_LEVEL__INIT;
    order.as_configured = !l->of[PROGRAM_DATAPLANE].is_ordered;
    order.level = (Gwp__Logging__Level)l->of[PROGRAM_DATAPLANE].level;
    session_send(s, MSG_LOG_LEVEL, &order.base, NULL, 0);
}

void log_levels_init(struct log_levels *l, struct sessions *sessions)
{
    *l = (struct log_levels){.sessions = sessions};
}

bool log_levels_order(struct log_levels *l, enum log_program program, const char *word)
{
    enum log_level level = LOG_INFO;
    bool is_ordered = strcmp(word, "default") != 0;
    if (is_ordered && !log_level_parse(word, &level))
        return false;
    l->of[program].is_ordered = is_ordered;
    l->of[program].level = level;
    log_info("log_levels", "the log level of the %s is ordered: %s",
             program == PROGRAM_CONTROLPLANE ? "control plane" : "data planes", word);
    if (program == PROGRAM_CONTROLPLANE) {
        log_override(is_ordered, level);
    } else {
        sessions_each(s, l->sessions) tell(l, s);
    }
    return true;
}

void log_levels_opened(const struct log_levels *l, struct session *s)
{
    if (l->of[PROGRAM_DATAPLANE].is_ordered)
        tell(l, s);
}
