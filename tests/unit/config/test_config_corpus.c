/* The corpus: each tests/golden/config/NAME.yaml is refused with exactly the text of NAME.expect.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <stdlib.h>

#include "controlplane/config/diagnostics.h"

#define FOLDER "tests/golden/config/"

static char *read_text(const char *path)
{
    FILE *f = fopen(path, "rb");
    cr_assert(f, "%s cannot be opened; tests run from the root of the repository", path);
    char *text = calloc(1, 1 << 20);
    size_t n = fread(text, 1, (1 << 20) - 1, f);
    fclose(f);
    text[n] = '\0';
    return text;
}

/* Of all files: how much is said, and of how much with the exact place. */
static size_t said, placed;

static char *diagnose(const char *path, bool *refused)
{
    struct diagnostics d;
    char *printed = NULL;
    size_t len = 0;
    diagnostics_init(&d);
    struct config *cfg = config_load_file(path, &d);
    *refused = cfg == NULL;
    config_free(&cfg);
    for (size_t i = 0; i < d.count; i++) {
        bool has_place = d.at[i].place.line > 0 && d.at[i].place.column > 0;
        placed += has_place;
        cr_expect(has_place || strncmp(d.at[i].message, "the file is empty", 17) == 0 ||
                      strncmp(d.at[i].message, "there are no routes", 19) == 0,
                  "%s: what is said of a part of the file has a place: %s", path, d.at[i].message);
    }
    said += d.count;
    FILE *out = open_memstream(&printed, &len);
    diagnostics_print(&d, out, false);
    fclose(out);
    diagnostics_fini(&d);
    return printed;
}

static void check_file(const char *name, size_t base)
{
    char yaml[512], expect[512];
    bool refused;
    snprintf(yaml, sizeof(yaml), FOLDER "%s", name);
    snprintf(expect, sizeof(expect), FOLDER "%.*s.expect", (int)base, name);
    char *printed = diagnose(yaml, &refused), *wanted = read_text(expect);
    cr_expect(refused, "%s must be refused", yaml);
    cr_expect_str_eq(printed, wanted, "%s: printed\n%s\ninstead of\n%s", yaml, printed, wanted);
    free(printed);
    free(wanted);
}

Test(config_corpus, every_broken_file_is_refused_with_the_expected_words)
{
    size_t files = 0;
    unsetenv("GWP_TEST_IS_NOT_SET");
    unsetenv("client_ip");
    DIR *folder = opendir(FOLDER);
    cr_assert(folder, "no folder " FOLDER "; tests run from the root of the repository");
    for (struct dirent *e; (e = readdir(folder));) {
        const char *dot = strrchr(e->d_name, '.');
        if (!dot || strcmp(dot, ".yaml") != 0)
            continue;
        check_file(e->d_name, (size_t)(dot - e->d_name));
        files++;
    }
    closedir(folder);
    printf("%zu broken files: %zu errors and warnings, %zu of them with line and column\n", files,
           said, placed);
    cr_assert_geq(files, 90);
}
