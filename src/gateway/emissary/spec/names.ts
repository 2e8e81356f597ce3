/** Why Emissary would misread a Secret of this name, or undefined. */
export function secretNameProblem(name: string): string | undefined {
  if (name.includes('.')) {
    return `the Secret name ${name} has a dot: Emissary reads the part after the last dot as a namespace; remove the dot`;
  }
  if (name === 'istio-certs') {
    return 'the Secret name istio-certs is reserved: with AMBASSADOR_ISTIO_SECRET_DIR set, Emissary creates its own, which hides this one; choose another';
  }
  return undefined;
}

/** Why Emissary would misread a TLSContext of this name, or undefined. */
export function contextNameProblem(name: string): string | undefined {
  if (name.includes('.')) {
    return `the TLSContext name ${name} has a dot: a Mapping could not refer to it unambiguously; remove the dot`;
  }
  if (name.endsWith('-context')) {
    return `the TLSContext name ${name} ends in -context: Emissary would tie it to a Host named ${name.slice(0, -'-context'.length)}; choose another`;
  }
  return undefined;
}
