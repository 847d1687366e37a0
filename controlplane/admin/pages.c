#include "controlplane/admin/pages.h"

/* The bytes of a file, and how many they are. */
#define EMBED(name, file)                                                                          \
    __asm__(".section .rodata\n" #name ":\n"                                                       \
            ".incbin \"controlplane/admin/pages/" file "\"\n" #name "_end:\n"                      \
            ".balign 8\n" #name "_size:\n"                                                         \
            ".8byte " #name "_end - " #name "\n"                                                   \
            ".previous\n");                                                                        \
    extern const char name[];                                                                      \
    extern const uint64_t name##_size

EMBED(page_dashboard, "dashboard.html");
EMBED(page_script, "dashboard.js");
EMBED(page_style, "dashboard.css");
EMBED(page_openapi, "openapi.yaml");

static const struct {
    const char *path, *type, *text;
    const uint64_t *size;
} pages[] = {
    {"/", "text/html; charset=utf-8", page_dashboard, &page_dashboard_size},
    {"/dashboard.js", "text/javascript; charset=utf-8", page_script, &page_script_size},
    {"/dashboard.css", "text/css; charset=utf-8", page_style, &page_style_size},
    {"/api/v1/openapi.yaml", "application/yaml", page_openapi, &page_openapi_size},
};

bool page_find(const char *path, struct page *page)
{
    for (size_t i = 0; i < COUNT_OF(pages); i++) {
        if (strcmp(pages[i].path, path) != 0)
            continue;
        *page = (struct page){pages[i].type, {pages[i].text, *pages[i].size}};
        return true;
    }
    return false;
}
