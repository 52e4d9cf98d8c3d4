# SPDX-License-Identifier: GPL-2.0-or-later
# Completion of sev-migrate for bash; installed as
# /usr/share/bash-completion/completions/sev-migrate
# shellcheck shell=bash

_sev_migrate()
{
    local current previous words
    current=${COMP_WORDS[COMP_CWORD]}
    previous=${COMP_WORDS[COMP_CWORD - 1]}

    if [ "$COMP_CWORD" = 1 ]; then
        words='check export verify measure estimate run vars --help --version'
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
        return
    fi
    # Values of options
    case $previous in
    --on-limit) words='cancel stop' ;;
    --product) words='Genoa Milan Naples Rome Turin' ;;
    --qemu) mapfile -t COMPREPLY < <(compgen -c -- "$current"); return ;;
    --domain)
        words=$(virsh list --name 2> /dev/null) ;;
    --guest|--source|--destination|--host|--ark|--cek|--amd|--firmware|--helper|\
--kernel|--initrd|--tik|--picture)
        # --helper of run is a switch
        if [ "$previous" != --helper ] || [ "${COMP_WORDS[1]}" = measure ]; then
            compopt -o filenames 2> /dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
            return
        fi ;;
    --tls)
        compopt -o filenames 2> /dev/null
        mapfile -t COMPREPLY < <(compgen -d -- "$current")
        return ;;
    --connect|--memory|--min-api|--min-build|--append|--policy|--cpus|\
--signature|--expect|--api|--build|--helper-address|--cbit|--pages-per-second|\
--bandwidth|--downtime|--seconds|--listen|--tls-creds|--tls-hostname|\
--multifd|--time-limit)
        return ;;
    esac
    if [ -n "${words-}" ]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
        return
    fi
    case ${COMP_WORDS[1]} in
    check) words='--guest --domain --connect --qemu --memory --tls --min-api
                  --min-build --json --help' ;;
    export) words='--cek --amd --guest --domain --connect --json --help' ;;
    verify) words='--ark --product --min-api --min-build --json --help' ;;
    measure) words='--firmware --helper --helper-address --cbit --kernel
                    --initrd --append --policy --cpus --signature --init2 --tik
                    --expect --api --build --json --help' ;;
    estimate) words='--guest --domain --connect --pages-per-second --bandwidth
                     --downtime --seconds --json --help' ;;
    run) words='--source --domain --connect --destination --host --ark
                --unverified --listen --tls --tls-creds --tls-hostname
                --multifd --auto-converge --helper --postcopy --downtime
                --bandwidth --time-limit --on-limit --picture --quit --quiet
                --json --help' ;;
    vars) words='--help' ;;
    *) return ;;
    esac
    case $current in
    -*) mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current") ;;
    *) # FILE, TEMPLATE and OUTPUT
        case ${COMP_WORDS[1]} in
        export|verify|vars)
            compopt -o filenames 2> /dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
        *) mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current") ;;
        esac ;;
    esac
}
complete -F _sev_migrate sev-migrate
