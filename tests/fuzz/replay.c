/* replay: main() of a driver that is not linked with libFuzzer: every file of the folders and every
 * file that is named goes through it once. */
#include <dirent.h>
#include <sys/stat.h>

#include "fuzz.h"

static unsigned files;

static void replay_file(const char *path)
{
    static uint8_t bytes[1024 * 1024];
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        exit(1);
    }
    size_t len = fread(bytes, 1, sizeof(bytes), f);
    fclose(f);
    /* In memory of exactly that size, so that a sanitizer sees who reads beyond it. */
    uint8_t *exact = malloc(len > 0 ? len : 1);
    PROMISE(exact);
    memcpy(exact, bytes, len);
    LLVMFuzzerTestOneInput(exact, len);
    free(exact);
    files++;
}

static void replay(const char *path)
{
    struct stat about;
    if (stat(path, &about) < 0) {
        perror(path);
        exit(1);
    }
    if (!S_ISDIR(about.st_mode)) {
        replay_file(path);
        return;
    }
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char name[4096];
        snprintf(name, sizeof(name), "%s/%s", path, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.')
            replay_file(name);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        replay(argv[i]);
    printf("%s: %u inputs\n", argv[0], files);
    return files > 0 ? 0 : 1;
}
