/* The smallest server: binds $PORT, answers every connection, keeps nothing. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void) {
    static const char reply[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nup\n";
    const char *port = getenv("PORT");
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_port = htons((unsigned short)atoi(port ? port : "0"));
    int door = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(door, (struct sockaddr *)&address, sizeof address) < 0 || listen(door, 64) < 0) return 1;
    for (;;) {
        char head[4096];
        int guest = accept(door, NULL, NULL);
        if (guest < 0) continue;
        if (read(guest, head, sizeof head) > 0 && write(guest, reply, sizeof reply - 1) < 0) return 2;
        close(guest);
    }
}
