# Moves under way come to their end first: what is left after two minutes the next agent settles when it starts.
moves_end() {
    waited=0
    while [ $waited -lt 120 ] && ! evenkeel status -o json | grep -q '"moves_under_way": 0'; do
        sleep 1
        waited=$((waited + 1))
    done
}
