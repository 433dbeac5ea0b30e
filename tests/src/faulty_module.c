/* A PKCS#11 module between the service and SoftHSM, for what no token does when it is asked to: it hangs, fails, signs
   wrongly, or says that one try of the PIN is left. The file $FAULTY_SAYS holds the word of the moment; what was called is
   appended to $FAULTY_LOG, a character each: L login, W and that its PIN was wrong, S signature, O and C a session opened
   and closed, I module started. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long word;
typedef word (*function)();

/* CK_FUNCTION_LIST of version 2.40: two bytes of version, then the functions in the standard's order. */
struct list {
    unsigned char major, minor;
    function functions[68];
};
enum { INITIALIZE = 0, GET_TOKEN_INFO = 6, OPEN_SESSION = 12, CLOSE_SESSION = 13, LOGIN = 18, SIGN = 43 };
enum { DEVICE_ERROR = 0x30, PIN_INCORRECT = 0xa0, FINAL_TRY = 0x20000, FLAGS_AT = 96 };

static struct list real, ours;

static int says(const char *what) {
    char text[32] = "";
    const char *path = getenv("FAULTY_SAYS");
    int file = path ? open(path, O_RDONLY) : -1;
    if (file >= 0) {
        ssize_t length = read(file, text, sizeof text - 1);
        text[length > 0 ? length : 0] = 0;
        close(file);
    }
    return strcmp(text, what) == 0;
}

static void called(const char *what) {
    const char *path = getenv("FAULTY_LOG");
    int file = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
    if (file >= 0) {
        if (write(file, what, 1) < 0) perror("faulty module");
        close(file);
    }
}

static word initialize(void *arguments) {
    called("I");
    return real.functions[INITIALIZE](arguments);
}

static word get_token_info(word slot, unsigned char *info) {
    word result = real.functions[GET_TOKEN_INFO](slot, info);
    word flags;
    memcpy(&flags, info + FLAGS_AT, sizeof flags);
    if (says("final try")) flags |= FINAL_TRY;
    memcpy(info + FLAGS_AT, &flags, sizeof flags);
    return result;
}

static word open_session(word slot, word flags, void *application, void *notify, word *session) {
    called("O");
    return real.functions[OPEN_SESSION](slot, flags, application, notify, session);
}

static word close_session(word session) {
    called("C");
    return real.functions[CLOSE_SESSION](session);
}

static word login(word session, word user, unsigned char *pin, word length) {
    called("L");
    word result = real.functions[LOGIN](session, user, pin, length);
    if (result == PIN_INCORRECT) called("W");
    return result;
}

static word sign(word session, unsigned char *data, word length, unsigned char *signature, word *signature_length) {
    /* The first of two calls, for the length. */
    if (!signature) called("S");
    while (says("hang")) usleep(10000);
    if (says("fail")) return DEVICE_ERROR;
    word result = real.functions[SIGN](session, data, length, signature, signature_length);
    if (signature && says("lie")) signature[0] ^= 1;
    return result;
}

word C_GetFunctionList(struct list **given) {
    void *module = dlopen(getenv("FAULTY_MODULE"), RTLD_NOW);
    if (!module) return 5;
    word (*get)(struct list **) = (word (*)(struct list **))dlsym(module, "C_GetFunctionList");
    struct list *found;
    word result = get(&found);
    if (result) return result;
    real = ours = *found;
    ours.functions[INITIALIZE] = (function)initialize;
    ours.functions[GET_TOKEN_INFO] = (function)get_token_info;
    ours.functions[OPEN_SESSION] = (function)open_session;
    ours.functions[CLOSE_SESSION] = (function)close_session;
    ours.functions[LOGIN] = (function)login;
    ours.functions[SIGN] = (function)sign;
    *given = &ours;
    return 0;
}
